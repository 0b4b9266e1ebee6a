// SPDX-License-Identifier: GPL-3.0-or-later
// Requests to the server. Each carries the key of this page, which the browser gives to no other origin.

const KEY = "dreamwright-key";

export function keepKey(key) {
  localStorage.setItem(KEY, key);
}

export function forgetKey() {
  localStorage.removeItem(KEY);
}

export function hasKey() {
  return localStorage.getItem(KEY) !== null;
}

// The server refused a request, or did not answer; `status` is 0 without an answer.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function request(path, options = {}) {
  const headers = { "X-Dreamwright-Key": localStorage.getItem(KEY) ?? "", ...options.headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer.");
  }
  if (response.ok) return response;
  let message = `The server answered with status ${response.status}.`;
  try {
    message = (await response.json()).message || message;
  } catch {
    // A body that is no JSON has no better sentence.
  }
  throw new Refused(response.status, message);
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

// Calls `take(kind, data)` with each server-sent event until the stream ends.
export async function readEvents(path, signal, take) {
  const response = await request(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (fields.event) take(fields.event, JSON.parse(fields.data));
    }
  }
}
