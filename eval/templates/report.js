"use strict";
(() => {
  const kind = document.getElementById("kind");
  const words = document.getElementById("words");
  const shown = document.getElementById("shown");
  const failures = [...document.querySelectorAll(".failure")];
  const print = { open: [] };
  addEventListener("beforeprint", () => {
    print.open = failures.filter((one) => !one.open);
    print.open.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => print.open.forEach((one) => { one.open = false; }));
  if (!kind || !words || !shown) return;
  const apply = () => {
    const wanted = words.value.trim().toLowerCase();
    let count = 0;
    for (const one of failures) {
      const fits = (!kind.value || one.dataset.kinds.split(" ").includes(kind.value))
        && (!wanted || one.textContent.toLowerCase().includes(wanted));
      one.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.textContent = `${count} of ${failures.length} shown`;
  };
  document.getElementById("filter").hidden = false;
  kind.addEventListener("change", apply);
  words.addEventListener("input", apply);
  apply();
})();
