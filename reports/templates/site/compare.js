'use strict';
// Compares any two columns by the data in the page. What was compared in advance, with tests of significance, is below and needs no script.
(function () {
  const $ = (id) => document.getElementById(id);
  const ready = () => { document.documentElement.dataset.ready = 'yes'; };
  const form = document.querySelector('.choose');
  if (!form) return ready();
  const data = JSON.parse($('data').textContent);
  const a = $('a'), b = $('b'), result = $('result'), count = $('count');

  function element(name, content, attributes) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    for (const one of [].concat(content === undefined ? [] : content)) made.append(one);
    return made;
  }

  function verdict(word) {
    if (!word) return element('td', 'not looked at', { class: 'none' });
    const sign = element('span', data.signs[word] || '', { class: 'mark', 'aria-hidden': 'true' });
    return element('td', [sign, ' ' + word], { class: 'v-' + word });
  }

  function table(title, first, names, rows) {
    if (rows.length === 0) return [];
    const head = element('tr', [first].concat(names).map((name) => element('th', name, { scope: 'col' })));
    const body = element('table', [element('thead', head), element('tbody', rows)], { class: 'across' });
    const region = { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': title };
    return [element('h3', title + ' (' + rows.length + ')'), element('div', body, region)];
  }

  function compare() {
    const one = data.columns.findIndex((column) => column.run === a.value);
    const two = data.columns.findIndex((column) => column.run === b.value);
    const names = [data.columns[one].name, data.columns[two].name];
    const rules = [], cases = [], choices = [];
    for (const [id, text, words] of data.rules) {
      if (words[one] === words[two]) continue;
      const head = element('th', [element('code', id), element('span', text, { class: 'words' })], { scope: 'row' });
      rules.push(element('tr', [head, verdict(words[one]), verdict(words[two])]));
    }
    for (const [id, said] of data.cases) {
      const [x, y] = [said[one], said[two]];
      if (x[0] === y[0] && (x[1] === y[1] || x[0] === 'pass')) continue;
      const cells = [x, y].map(([word, rate]) => {
        const cell = verdict(word);
        if (rate) cell.append(element('span', data.rates[rate], { class: 'more' }));
        return cell;
      });
      cases.push(element('tr', [element('th', element('code', id), { scope: 'row' })].concat(cells)));
    }
    for (const [id, said] of data.choices) {
      if (said[one] === said[two]) continue;
      const cells = [said[one], said[two]].map((value) => element('td', value || 'not seen'));
      choices.push(element('tr', [element('th', element('code', id), { scope: 'row' })].concat(cells)));
    }
    const notes = [];
    if (data.columns[one].catalogue !== data.columns[two].catalogue) {
      notes.push(element('p', 'The catalogues differ: a case may have changed between the two.', { class: 'limit' }));
    }
    for (const column of new Set([one, two])) {
      if (!data.columns[column].whole) {
        notes.push(element('p', data.columns[column].name + ' is no whole run: what it does not say may be different.', { class: 'limit' }));
      }
    }
    const links = [one, two].map((at) => element('a', 'Report of ' + data.columns[at].name, { href: data.columns[at].report }));
    result.replaceChildren(
      element('p', [links[0], ' · ', links[1]]), ...notes,
      ...table('Rules that differ', 'Requirement', names, rules),
      ...table('Cases that differ', 'Case', names, cases),
      ...table('Open choices that differ', 'Choice', names, choices));
    count.textContent = rules.length + ' rules, ' + cases.length + ' cases and ' + choices.length + ' open choices differ';
    const pairs = [a.value + '..' + b.value, b.value + '..' + a.value];
    for (const pair of document.querySelectorAll('[data-pair]')) pair.open = pairs.includes(pair.dataset.pair);
  }

  function remember() {
    const hash = '#a=' + encodeURIComponent(a.value) + '&b=' + encodeURIComponent(b.value);
    try {
      history.replaceState(null, '', hash);
    } catch (error) {
      // A page from a disk may not be allowed to.
    }
  }

  function follow() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const known = (run) => data.columns.some((column) => column.run === run);
    if (known(wanted.get('a'))) a.value = wanted.get('a');
    if (known(wanted.get('b'))) b.value = wanted.get('b');
    compare();
  }

  a.selectedIndex = 0;
  b.selectedIndex = 1;
  form.addEventListener('change', () => { compare(); remember(); });
  form.addEventListener('submit', (event) => event.preventDefault());
  $('swap').addEventListener('click', () => {
    [a.value, b.value] = [b.value, a.value];
    compare();
    remember();
  });
  window.addEventListener('hashchange', follow);
  $('without').hidden = true;
  form.hidden = false;
  follow();
  ready();
}());
