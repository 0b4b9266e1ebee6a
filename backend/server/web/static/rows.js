// SPDX-License-Identifier: GPL-3.0-or-later
// Elements of the page made from the server's data. Text is only ever set as text.

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text; // an unchanged text is not announced again
}

export function duration(seconds) {
  if (seconds < 0) return "unknown";
  const total = Math.round(seconds);
  for (const [size, smaller, long, short] of [[86400, 3600, "d", "h"], [3600, 60, "h", "min"], [60, 1, "min", "s"]]) {
    if (total >= size) return `${Math.floor(total / size)} ${long} ${Math.floor((total % size) / smaller)} ${short}`;
  }
  return `${total} s`;
}

export function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${unit === "B" ? value : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

export function isEnded(job) {
  return ["succeeded", "failed", "cancelled"].includes(job.state);
}

export function shortPrompt(job) {
  return job.prompt.length > 60 ? `${job.prompt.slice(0, 57)}…` : job.prompt;
}

// One sentence about where a job stands.
export function progressText(job) {
  if (job.state === "running") {
    return job.step ? `Step ${job.step} of ${job.steps}, ${duration(job.eta_s)} left` : "Starting";
  }
  if (job.state === "queued") {
    const ready = job.ready_high_s < 0 ? "" : `, ready in at most ${duration(job.ready_high_s)}`;
    return `Place ${job.queue_position} in the queue${ready}`;
  }
  if (job.state === "paused") return `Paused at step ${job.step} of ${job.steps}`;
  return job.step ? `${job.step} of ${job.steps} steps` : "";
}

// [action, label, whether to ask first, more fields] of the buttons that a job has now.
export function jobActions(job, isAdmin) {
  const found = [];
  if (job.state === "queued" && isAdmin) found.push(["move", "Move to front", false, {}]);
  if (["queued", "running"].includes(job.state)) found.push(["pause", "Pause", false, {}]);
  if (job.state === "paused" || (job.state === "failed" && job.resumable)) found.push(["resume", "Resume", false, {}]);
  if (["queued", "running", "paused"].includes(job.state)) found.push(["cancel", "Cancel", true, {}]);
  if (isEnded(job)) {
    found.push(["pin", job.pinned ? "Unpin" : "Pin", false, { pinned: !job.pinned }]);
    found.push(["delete", "Delete", true, {}]);
  }
  return found;
}

// Makes a table's rows equal to `rows`, lists of texts or elements.
export function fillTable(table, rows) {
  const body = table.tBodies[0];
  const before = new Map([...body.rows].map((row) => [row.dataset.name, row]));
  for (const [name, cells] of rows) {
    let row = before.get(name);
    before.delete(name);
    if (!row) {
      row = body.insertRow();
      row.dataset.name = name;
      for (const [index] of cells.entries()) row.append(element(index ? "td" : "th"));
      row.cells[0].scope = "row";
    }
    for (const [index, cell] of cells.entries()) {
      if (typeof cell === "string") setText(row.cells[index], cell);
      else cell(row.cells[index]);
    }
  }
  for (const row of before.values()) row.remove();
}
