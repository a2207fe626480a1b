"use strict";
(() => {
  const STEP = 25;
  const byId = (id) => document.getElementById(id);
  const [kind, words, shown, more] = ["kind", "words", "shown", "more"].map(byId);
  const failures = [...document.querySelectorAll(".failure")];
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.reasons"), ...failures].filter((one) => !one.open);
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
  if (!kind || !words || !shown || !more) return;
  let limit = STEP;
  const apply = () => {
    const wanted = words.value.trim().toLowerCase();
    let count = 0;
    for (const one of failures) {
      const fits = (!kind.value || one.dataset.kinds.split(" ").includes(kind.value))
        && (!wanted || one.textContent.toLowerCase().includes(wanted));
      count += fits ? 1 : 0;
      one.hidden = !fits || count > limit;
    }
    shown.textContent = `${Math.min(count, limit)} of ${failures.length} shown`;
    more.hidden = count <= limit;
    more.textContent = `Show ${Math.min(STEP, count - limit)} more of ${count}`;
  };
  const restart = () => { limit = STEP; apply(); };
  byId("filter").hidden = false;
  kind.addEventListener("change", restart);
  words.addEventListener("input", restart);
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const first = limit;
    limit += STEP;
    apply();
    failures.filter((one) => !one.hidden)[first]?.querySelector("summary").focus();
  });
  apply();
})();
