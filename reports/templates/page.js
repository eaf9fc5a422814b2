'use strict';
// Filters the cases and follows links into the page. Everything it needs is in the document; without it everything can be read.
(function () {
  const $ = (id) => document.getElementById(id);
  const form = document.querySelector('.filter');
  const text = $('text'), area = $('area'), count = $('count'), nothing = $('nothing');
  const boxes = Array.from(form.querySelectorAll('input[name=verdict]'));
  const cases = Array.from(document.querySelectorAll('#list > .case')).map((element) => ({
    element,
    id: element.dataset.case,
    verdict: element.dataset.verdict,
    area: element.dataset.area,
    shown: true,
    // The line of the list and the one below it, which has area, axes and requirements.
    words: (element.querySelector('summary').textContent + ' ' + element.querySelector('.body > p').textContent)
      .toLowerCase().replace(/\s+/g, ' '),
  }));
  const byId = new Map(cases.map((one) => [one.id, one]));

  function apply() {
    const verdicts = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const one of cases) {
      const fits = (verdicts.size === 0 || verdicts.has(one.verdict)) &&
        (area.value === '' || area.value === one.area) && words.every((word) => one.words.includes(word));
      if (fits) shown += 1;
      if (fits !== one.shown) {
        one.shown = fits;
        one.element.hidden = !fits;
      }
    }
    count.textContent = shown === cases.length ? shown + ' cases' : shown + ' of ' + cases.length + ' cases';
    nothing.hidden = shown > 0;
  }

  // The filter is in the address, so that it can be sent to somebody.
  function remember() {
    const parts = new URLSearchParams();
    const verdicts = boxes.filter((box) => box.checked).map((box) => box.value);
    if (verdicts.length) parts.set('verdict', verdicts.join(','));
    if (area.value) parts.set('area', area.value);
    if (text.value) parts.set('text', text.value);
    const hash = parts.toString();
    try {
      history.replaceState(null, '', hash ? '#' + hash : location.pathname + location.search);
    } catch (error) {
      // A page from a disk may not be allowed to; then the filter only works here.
    }
  }

  // In links a plus is a plus: they are percent-encoded. What `remember` wrote has none that is not encoded, but for spaces.
  function parameters(hash) {
    const found = new Map();
    for (const part of hash.replace(/^#/, '').split('&')) {
      const at = part.indexOf('=');
      if (at < 1) continue;
      const name = part.slice(0, at);
      let value = part.slice(at + 1);
      if (name !== 'case' && name !== 'requirement') value = value.replace(/\+/g, ' ');
      try {
        found.set(name, decodeURIComponent(value));
      } catch (error) {
        found.set(name, value);
      }
    }
    return found;
  }

  function reveal(element, focus) {
    for (let up = element; up; up = up.parentElement) {
      if (up.tagName === 'DETAILS') up.open = true;
    }
    element.scrollIntoView();
    focus.focus({ preventScroll: true });
  }

  function follow() {
    const wanted = parameters(location.hash);
    const filters = ['verdict', 'area', 'text'].some((name) => wanted.has(name));
    if (wanted.has('case')) {
      const one = byId.get(wanted.get('case'));
      clear();
      apply();
      if (one) {
        reveal(one.element, one.element.querySelector('summary'));
      } else {
        count.textContent = 'There is no case ' + wanted.get('case') + ' in this report.';
      }
    } else if (wanted.has('requirement')) {
      const id = wanted.get('requirement');
      const rule = Array.from(document.querySelectorAll('[data-requirement]')).find((one) => one.dataset.requirement === id);
      if (rule) reveal(rule, rule);
    } else if (filters) {
      clear();
      const verdicts = (wanted.get('verdict') || '').split(',');
      for (const box of boxes) box.checked = verdicts.includes(box.value);
      area.value = wanted.get('area') || '';
      if (area.selectedIndex < 0) area.value = '';
      text.value = wanted.get('text') || '';
      apply();
      $('cases').scrollIntoView();
    }
  }

  function clear() {
    for (const box of boxes) box.checked = false;
    area.value = '';
    text.value = '';
  }

  form.addEventListener('input', () => { apply(); remember(); });
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('reset', (event) => { event.preventDefault(); clear(); apply(); remember(); text.focus(); });
  window.addEventListener('hashchange', follow);
  // A second click on the same link leads there again.
  document.addEventListener('click', (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#"]');
    if (link && link.getAttribute('href') === location.hash) follow();
  });
  document.addEventListener('keydown', (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      text.focus();
      text.select();
    }
    if (event.key === 'Escape' && event.target === text) {
      text.value = '';
      apply();
      remember();
    }
  });

  for (const button of document.querySelectorAll('.copy')) {
    button.hidden = false;
    button.addEventListener('click', () => {
      const code = button.parentElement.querySelector('code');
      const done = () => { button.textContent = 'Copied'; };
      const select = () => { getSelection().selectAllChildren(code); };
      if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, select);
      else select();
    });
  }

  // On paper nothing can be opened: what failed is printed with everything about it.
  let closed = [];
  window.addEventListener('beforeprint', () => {
    const wanted = cases.filter((one) => one.shown && (one.verdict === 'fail' || one.verdict === 'flaky'));
    const all = wanted.slice(0, 50).flatMap((one) => [one.element, ...one.element.querySelectorAll('details')]);
    closed = all.filter((details) => !details.open);
    for (const details of closed) details.open = true;
  });
  window.addEventListener('afterprint', () => {
    for (const details of closed) details.open = false;
    closed = [];
  });

  follow();
  document.documentElement.dataset.ready = 'yes';
}());
