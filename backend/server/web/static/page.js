// SPDX-License-Identifier: GPL-3.0-or-later
// The page: reads the stream of events while it is visible, and keeps the lists and tables equal to what it says.

import { forgetKey, hasKey, post, readEvents, request } from "/requests.js";
import { duration, element, fillTable, isEnded, jobActions, progressText, setText, shortPrompt, size } from "/rows.js";

const LONGEST_WAIT_MS = 15000;
const ENDED_SHOWN = 20;
const MODELS_MS = 120000;

const by = (id) => document.getElementById(id);
const jobs = new Map();
const cards = new Map(); // by job: its element and what is in it
let account = { user: "", is_admin: false, is_open: false };
let endedShown = ENDED_SHOWN;
let stream = null;
let modelsAt = -MODELS_MS;

// --- jobs

function mayManage() {
  return account.is_admin || account.is_open;
}

function makeCard(job) {
  const card = element("li", "job");
  card.dataset.job = job.job;
  const picture = element("img");
  picture.alt = "";
  const title = element("h3", "", job.prompt);
  title.id = `title-${job.job}`;
  const facts = element("p", "facts");
  const state = element("span", "state");
  const bar = element("progress");
  bar.setAttribute("aria-label", `Progress of ${shortPrompt(job)}`);
  const progress = element("p", "progress");
  const message = element("p", "message");
  const actions = element("div", "actions");
  const text = element("div", "text");
  text.append(title, facts, bar, progress, message, actions);
  card.append(picture, text);
  card.setAttribute("aria-labelledby", title.id);
  return { card, picture, facts, state, bar, progress, message, actions, step: 0, shown: "" };
}

function showCard(job) {
  const parts = cards.get(job.job) ?? makeCard(job);
  cards.set(job.job, parts);
  parts.card.dataset.state = job.state;
  setText(parts.facts, factsOf(job));
  parts.bar.hidden = isEnded(job) || job.state === "queued";
  parts.bar.max = Math.max(1, job.steps);
  parts.bar.value = job.step;
  setText(parts.progress, progressText(job));
  setText(parts.message, job.message);
  showActions(job, parts);
  if (job.preview_step && job.preview_step !== parts.step) showPreview(job, parts);
}

function factsOf(job) {
  const facts = [job.state];
  if (account.is_admin) facts.push(job.owner);
  facts.push(`${job.model}, ${job.preset}`);
  if (job.device && job.state === "running") facts.push(job.device);
  if (job.priority) facts.push(`priority ${job.priority}`);
  if (job.pinned) facts.push("pinned");
  return facts.join(" · ");
}

function showActions(job, parts) {
  const wanted = jobActions(job, mayManage());
  const shown = JSON.stringify(wanted);
  if (shown === parts.shown) return;
  parts.shown = shown;
  const focused = parts.actions.contains(document.activeElement);
  parts.actions.replaceChildren(
    ...wanted.map(([action, label, asks, fields]) => {
      const button = element("button", asks ? "danger" : "", label);
      button.type = "button";
      button.setAttribute("aria-label", `${label}: ${shortPrompt(job)}`);
      button.addEventListener("click", () => actOnJob(job.job, action, label, asks, fields));
      return button;
    }),
  );
  if (focused) (parts.actions.querySelector("button") ?? by("jobs")).focus();
}

async function showPreview(job, parts) {
  parts.step = job.preview_step;
  try {
    const response = await request(`/api/preview/${encodeURIComponent(job.job)}?step=${job.preview_step}`);
    const address = URL.createObjectURL(await response.blob());
    const before = parts.picture.src;
    parts.picture.src = address;
    parts.picture.alt = `Preview of ${shortPrompt(job)} after step ${job.preview_step}`;
    if (before) URL.revokeObjectURL(before);
  } catch {
    parts.step = 0; // the next change of the job asks again
  }
}

function placeOf(job) {
  const states = ["running", "cancelling", "queued", "paused"];
  return states.indexOf(job.state) * 1e6 + job.queue_position;
}

function showJobs() {
  const open = [...jobs.values()].filter((job) => !isEnded(job)).sort((a, b) => placeOf(a) - placeOf(b));
  const ended = [...jobs.values()].filter(isEnded).sort((a, b) => b.submitted_at - a.submitted_at);
  const listed = [...open, ...ended.slice(0, endedShown)];
  listed.forEach(showCard);
  place(by("jobs"), open);
  place(by("ended"), ended.slice(0, endedShown));
  const kept = new Set(listed.map((job) => job.job));
  for (const [name, parts] of cards) {
    if (kept.has(name)) continue;
    if (parts.picture.src) URL.revokeObjectURL(parts.picture.src);
    parts.card.remove();
    cards.delete(name);
  }
  const running = open.filter((job) => ["running", "cancelling"].includes(job.state)).length;
  const queued = open.filter((job) => job.state === "queued").length;
  setText(by("jobs-summary"), `${running} running, ${queued} queued, ${open.length - running - queued} paused`);
  by("no-jobs").hidden = open.length > 0;
  by("no-ended").hidden = ended.length > 0;
  by("more").hidden = ended.length <= endedShown;
}

// Moves only what is not in its place, so that the focus stays where it is.
function place(list, wanted) {
  wanted.forEach((job, index) => {
    const { card } = cards.get(job.job);
    if (list.children[index] !== card) {
      const focused = card.contains(document.activeElement) ? document.activeElement : null;
      list.insertBefore(card, list.children[index] ?? null);
      if (focused) focused.focus();
    }
  });
}

// --- actions

function ask(question, answer) {
  const dialog = by("question");
  setText(by("question-text"), question);
  setText(by("question-yes"), answer);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

function tell(text) {
  by("news").textContent = text;
  by("news").classList.remove("unseen");
}

async function act(body, done) {
  try {
    await post("/api/act", body);
    tell(done);
  } catch (error) {
    tell(error.message);
  }
}

async function actOnJob(name, action, label, asks, fields) {
  const job = jobs.get(name);
  if (!job) return;
  const what = {
    cancel: job.state === "running" ? "It stops after this step, and what there is becomes a mesh." : "It has no mesh yet.",
    delete: "Its mesh and its preview are deleted from the server.",
  };
  if (asks && !(await ask(`${label} “${shortPrompt(job)}”? ${what[action]}`, `${label} the job`))) return;
  const done = {
    cancel: "is being cancelled", pause: "pauses", resume: "is queued again", delete: "is deleted", move: "is next in the queue",
    pin: fields.pinned ? "is pinned" : "is not pinned any more",
  };
  await act({ action, job: name, ...fields }, `“${shortPrompt(job)}” ${done[action]}.`);
}

// The server deletes a bounded number of jobs at a time.
async function freeDisk() {
  let count = 0;
  let bytes = 0;
  try {
    for (let left = 1; left > 0; ) {
      const freed = await post("/api/act", { action: "free" });
      count += freed.jobs;
      bytes += freed.size;
      left = freed.jobs ? freed.left : 0;
    }
    tell(`${count} jobs are deleted, which took ${size(bytes)}.`);
  } catch (error) {
    tell(error.message);
  }
}

// --- the server

function showStatus(status) {
  setText(by("who"), `${account.user}${account.is_admin ? ", admin" : ""} · ${status.software}`);
  fillTable(
    by("devices"),
    status.devices.map((device) => [device.name, [
      device.name,
      device.draining ? (device.state === "busy" ? "drains: no job starts after this one" : "drained") : device.state,
      device.user,
      device.steps_per_s ? device.steps_per_s.toPrecision(3) : "",
      (cell) => showDrain(cell, device),
    ]]),
  );
  fillTable(
    by("users"),
    status.users.map((user) => [user.name, [
      user.name,
      String(user.running),
      String(user.queued),
      String(user.paused),
      String(user.connections),
      user.seen_s < 0 ? "not since the start" : user.seen_s < 60 ? "now" : `${duration(user.seen_s)} ago`,
    ]]),
  );
  by("disk").hidden = !status.sees_all;
  setText(by("disk-text"), `Meshes and checkpoints take ${size(status.disk_used_bytes)}; ${size(status.disk_free_bytes)} of the disk are free.`);
  by("free-disk").hidden = !mayManage();
  if (status.is_closing) tell("The server is stopping. Jobs keep their progress and continue when it is back.");
  showModels();
}

function showDrain(cell, device) {
  if (!mayManage()) return;
  const button = cell.firstElementChild ?? cell.appendChild(element("button"));
  button.type = "button";
  setText(button, device.draining ? "Use again" : "Drain");
  button.setAttribute("aria-label", `${button.textContent}: ${device.name}`);
  button.onclick = () => act(
    { action: "drain", device: device.name, draining: !device.draining },
    device.draining ? `${device.name} takes jobs again.` : `${device.name} takes no more jobs.`,
  );
}

async function showModels() {
  if (performance.now() < modelsAt + MODELS_MS) return;
  modelsAt = performance.now();
  try {
    const { models } = await (await request("/api/models")).json();
    fillTable(by("models"), models.map((model) => [model.name, [model.name, model.family, model.summary]]));
  } catch {
    modelsAt = -MODELS_MS; // the next status asks again
  }
}

// --- the stream

function take(kind, data) {
  if (kind === "snapshot") {
    account = data.account;
    jobs.clear();
    for (const job of data.jobs) jobs.set(job.job, job);
    by("main").hidden = by("sign-out").hidden = false;
    setText(by("connection"), "Connected. This page follows the server.");
    showJobs();
    if (data.status.devices) showStatus(data.status);
  } else if (kind === "job") {
    if (data.gone) jobs.delete(data.job);
    else announce(jobs.get(data.job), data);
    showSoon();
  } else if (kind === "status") {
    showStatus(data);
  } else if (kind === "notice") {
    tell(data.text);
  } else if (kind === "ended") {
    leave(data.text);
  }
}

function announce(before, job) {
  jobs.set(job.job, job);
  if (before && before.state !== job.state) tell(`“${shortPrompt(job)}” is ${job.state}.`);
}

let soon = 0;
function showSoon() {
  if (soon) return;
  soon = requestAnimationFrame(() => {
    soon = 0;
    showJobs();
  });
}

// The session has ended: nothing that was shown stays.
function leave(text) {
  forgetKey();
  stream?.abort();
  stream = null;
  jobs.clear();
  showJobs();
  for (const id of ["devices", "users", "models"]) by(id).tBodies[0].replaceChildren();
  by("main").hidden = by("sign-out").hidden = true;
  for (const id of ["who", "news", "question-text", "disk-text", "jobs-summary"]) setText(by(id), "");
  by("news").classList.add("unseen");
  if (by("question").open) by("question").close("no");
  const link = element("a", "", "Sign in");
  link.href = "/sign-in";
  by("connection").replaceChildren(`Signed out: ${text} `, link);
}

async function follow() {
  if (stream) return;
  const own = new AbortController();
  stream = own;
  let wait = 500;
  while (!own.signal.aborted) {
    try {
      await readEvents("/api/events", own.signal, (kind, data) => {
        wait = 500;
        take(kind, data);
      });
      if (own.signal.aborted) return;
      setText(by("connection"), "The server does not answer. Trying again; what is shown is from before.");
    } catch (error) {
      if (own.signal.aborted) return;
      if (error.status === 401) return leave(error.message);
      const reason = error.status ? error.message : "The server does not answer.";
      setText(by("connection"), `${reason} Trying again; what is shown is from before.`);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

// A hidden page closes its stream, so that many open tabs cost the server nothing.
function onVisibility() {
  if (document.visibilityState === "visible" && hasKey()) {
    follow();
  } else {
    stream?.abort();
    stream = null;
  }
}

by("question-no").addEventListener("click", () => by("question").close("no"));
by("question-yes").addEventListener("click", () => by("question").close("yes"));
by("more").addEventListener("click", () => {
  endedShown += ENDED_SHOWN;
  showJobs();
});
by("free-disk").addEventListener("click", async () => {
  const question = "Delete all ended jobs that are not pinned and whose mesh was downloaded, or that have none?";
  if (await ask(question, "Delete them")) await freeDisk();
});
by("sign-out").addEventListener("click", async () => {
  try {
    await post("/api/sign-out", {});
    leave("you signed out.");
  } catch (error) {
    tell(error.message);
  }
});
document.addEventListener("visibilitychange", onVisibility);

if (hasKey()) onVisibility();
else leave("this browser has no session.");
