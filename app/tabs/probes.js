// New answers to the same five sentences: the last column of the table that is there already.
(function () {
  "use strict";
  const VERDICTS = ["right", "wrong", "unknown"], MARKS = ["✓", "✗", ""];

  window.zoAnswers = function (props, watch) {
    watch("value", () => {
      const table = document.querySelector("#zo-probes table"), news = props.value;
      if (!table || !news) return;
      table.tHead.rows[0].cells[3].textContent = "Step " + news.step;
      table.caption.textContent = table.caption.textContent.replace(/\d+$/, news.step);
      [...news.cells].forEach(([label, probability, verdict], i) => {
        const bar = table.tBodies[0].rows[i]?.cells[3]?.querySelector(".zo-bar"), mark = bar?.querySelector("em");
        if (!mark) return; // a table of another run: it is drawn anew with the next answers
        bar.className = "zo-bar " + VERDICTS[verdict];
        bar.style.setProperty("--share", Math.round(100 * probability) + "%");
        bar.querySelector("b").textContent = label + " " + (probability ?? 0).toFixed(2);
        mark.textContent = MARKS[verdict];
        mark.setAttribute("aria-label", VERDICTS[verdict]);
      });
    });
  };
})();
