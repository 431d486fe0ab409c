"use strict";
(function () {
  var scores = JSON.parse(document.getElementById("scores").textContent);
  var body = document.querySelector("#slides tbody");
  var rows = Array.from(body.rows);
  var choice = document.getElementById("pathway");
  var search = document.getElementById("search");
  var heads = Array.from(document.querySelectorAll("#slides thead th"));

  function number(value) {
    return (Math.round(value * 100) / 100).toFixed(2).replace("-", "\u2212");
  }
  function fill() {
    var values = scores[choice.value];
    rows.forEach(function (row) {
      var value = values[Number(row.dataset.number)];
      var cell = row.querySelector(".value");
      cell.textContent = value === null ? "none" : number(value);
      cell.dataset.sort = value === null ? "" : String(value);
      cell.dataset.label = choice.options[choice.selectedIndex].text;
    });
    document.getElementById("shown").textContent = choice.options[choice.selectedIndex].text;
  }
  function key(row, column) {
    var cell = row.cells[column];
    return cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent.trim();
  }
  function sortBy(column, down) {
    var numeric = heads[column].dataset.kind === "number";
    var order = rows.slice().sort(function (a, b) {
      var x = key(a, column), y = key(b, column);
      if (x === "" || y === "") { return x === y ? 0 : x === "" ? 1 : -1; }  // what has no value stays last
      var less = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
      return down ? -less : less;
    });
    order.forEach(function (row) { body.appendChild(row); });
    heads.forEach(function (head, i) {
      if (i === column) { head.setAttribute("aria-sort", down ? "descending" : "ascending"); }
      else { head.removeAttribute("aria-sort"); }
    });
  }
  heads.forEach(function (head, column) {
    var button = head.querySelector("button");
    if (button) {
      button.addEventListener("click", function () {
        sortBy(column, head.getAttribute("aria-sort") === "ascending");
      });
    }
  });
  choice.addEventListener("change", function () {
    fill();
    heads.forEach(function (head, column) {
      var sorted = head.getAttribute("aria-sort");
      if (head.classList.contains("chosen") && sorted) { sortBy(column, sorted === "descending"); }
    });
  });
  search.addEventListener("input", function () {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase();
      row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
    });
  });
  fill();
})();
