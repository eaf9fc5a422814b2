'use strict';
// Filters the requirements. Everything it needs is in the document; without it everything can be read.
(function () {
  const $ = (id) => document.getElementById(id);
  const form = document.querySelector('.filter');
  const text = $('text'), differ = $('differ'), trouble = $('trouble'), count = $('count'), nothing = $('nothing');
  const rows = Array.from(document.querySelectorAll('tr.rule')).map((element) => ({
    element,
    words: element.querySelector('th').textContent.toLowerCase(),
    area: element.parentElement,
  }));
  const areas = new Set(rows.map((row) => row.area));

  function apply() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const filtered = words.length > 0 || differ.checked || trouble.checked;
    const seen = new Set();
    let shown = 0;
    for (const row of rows) {
      const area = row.area.querySelector('th').textContent.toLowerCase();
      const fits = (!differ.checked || row.element.hasAttribute('data-differs')) &&
        (!trouble.checked || row.element.hasAttribute('data-trouble')) &&
        words.every((word) => row.words.includes(word) || area.includes(word));
      row.element.hidden = !fits;
      if (fits) {
        shown += 1;
        seen.add(row.area);
      }
    }
    // An area without a row left says nothing, unless nothing is filtered.
    for (const area of areas) area.hidden = filtered && !seen.has(area);
    count.textContent = shown === rows.length ? shown + ' requirements' : shown + ' of ' + rows.length + ' requirements';
    nothing.hidden = shown > 0;
  }

  form.addEventListener('input', apply);
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('reset', (event) => {
    event.preventDefault();
    text.value = '';
    differ.checked = false;
    trouble.checked = false;
    apply();
    text.focus();
  });
  form.hidden = false;
  // Links to a filtered table: #text=WORDS&differ&trouble
  const wanted = new URLSearchParams(location.hash.slice(1));
  text.value = wanted.get('text') || '';
  differ.checked = wanted.has('differ');
  trouble.checked = wanted.has('trouble');
  apply();
  document.documentElement.dataset.ready = 'yes';
}());
