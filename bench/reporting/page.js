"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const plots = data.figures.map((figure) => ({ ...figure, element: document.getElementById(figure.key) }));
  const PAPER = 690; // pixels between the margins of A4, or less
  const pointing = matchMedia("(hover: hover)").matches; // without, plotly's buttons would hide the legend for good
  const settings = {
    responsive: true,
    displaylogo: false,
    displayModeBar: pointing ? "hover" : false,
    modeBarButtonsToRemove: ["select2d", "lasso2d"],
    toImageButtonOptions: { format: "svg" },
  };

  // What the style sheet says, light or dark or on paper, is what plots are drawn in.
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const [paper, ink, line] = ["--paper", "--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
    const axis = { gridcolor: line, linecolor: line, zeroline: false };
    return { paper_bgcolor: paper, plot_bgcolor: paper, "font.color": ink, axis };
  }

  // The legend is above the plot, which keeps its own height however many entries there are. Plotly goes by the height of
  // the element: one of the layout it forgets when the window gets another size.
  function fit(figure) {
    figure.element.style.height = `${figure.layout.height ?? 380 + legendHeight(figure)}px`;
  }

  function legendHeight(figure) {
    const names = figure.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name.length);
    const each = 50 + 6.5 * Math.max(0, ...names);
    return 20 * Math.ceil(names.length / Math.max(1, Math.floor(figure.element.clientWidth / each)));
  }

  function layout(figure) {
    const { axis, "font.color": ink, ...rest } = colours();
    const { height, ...own } = figure.layout;
    const above = { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", font: { size: 11 } };
    return {
      ...rest,
      font: { color: ink, size: 12 },
      margin: { l: 8, r: 8, t: 8, b: 8 },
      hoverlabel: { align: "left" },
      legend: above,
      ...own,
      xaxis: { ...axis, ...figure.layout.xaxis },
      yaxis: { ...axis, ...figure.layout.yaxis },
    };
  }

  function repaint() {
    const { axis, ...rest } = colours();
    for (const name of ["xaxis", "yaxis"]) {
      for (const [key, value] of Object.entries(axis)) rest[`${name}.${key}`] = value;
    }
    for (const plot of plots) Plotly.relayout(plot.element, { ...rest });
  }

  plots.forEach(fit);
  addEventListener("resize", () => plots.forEach(fit)); // before plotly's own
  for (const plot of plots) Plotly.newPlot(plot.element, plot.data, layout(plot), settings);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  matchMedia("print").addEventListener("change", repaint);

  // On paper everything is told, and plots are as wide as it is: wider ones would make all the rest smaller.
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((each) => (each.open = true));
    for (const { element } of plots) Plotly.relayout(element, { width: Math.min(element.clientWidth, PAPER) });
  });
  addEventListener("afterprint", () => {
    for (const { element } of plots) Plotly.relayout(element, { width: null, autosize: true });
  });

  for (const box of document.querySelectorAll("[data-family]")) {
    box.addEventListener("change", () => {
      for (const { element } of plots) {
        if (!box.closest(".figures").contains(element)) continue;
        const concerned = element.data.flatMap((trace, at) => (trace.meta === box.dataset.family ? [at] : []));
        if (concerned.length) Plotly.restyle(element, { visible: box.checked }, concerned);
      }
    });
  }

  for (const button of document.querySelectorAll("[data-format]")) {
    button.addEventListener("click", () => {
      const { format, plot } = button.dataset;
      Plotly.downloadImage(plot, { format, filename: plot, scale: format === "png" ? 3 : 1 });
    });
  }

  // Steps are ascending [least budget, words]; the last that the budget reaches holds.
  const budget = document.getElementById("budget");
  const percentile = document.getElementById("percentile");
  function advise() {
    const value = budget.valueAsNumber;
    if (!(value >= 0)) return;
    document.querySelectorAll(".budget").forEach((each) => (each.textContent = String(value)));
    document.querySelectorAll(".advice").forEach((each, at) => {
      each.textContent = data.advice[at][percentile.value].filter(([least]) => least <= value).at(-1)[1];
    });
  }
  budget?.addEventListener("input", advise);
  budget?.form.addEventListener("submit", (event) => event.preventDefault());
  percentile?.addEventListener("change", advise);

  for (const heading of document.querySelectorAll("th")) {
    heading.firstChild.addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      const body = heading.closest("table").tBodies[0];
      const key = (row) => row.cells[heading.cellIndex].dataset.value ?? row.cells[heading.cellIndex].textContent;
      const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const numbers = (a, b) => Number(key(a)) - Number(key(b)) || order(a, b);
      body.append(...[...body.rows].sort((a, b) => (rising ? numbers(a, b) : numbers(b, a))));
      heading.parentNode.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    });
  }
})();
