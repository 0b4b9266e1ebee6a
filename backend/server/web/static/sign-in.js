// SPDX-License-Identifier: GPL-3.0-or-later
// Signs in with a one-time link. The link's secret is behind the #, which browsers send to no server; the button sends it.

import { keepKey, post } from "/requests.js";

const link = document.getElementById("link");
const result = document.getElementById("result");
const button = document.querySelector("#form button");

if (location.hash.length > 1) {
  link.value = location.hash.slice(1);
  history.replaceState(null, "", "/sign-in"); // the secret does not stay in the browser's history
  button.focus();
} else {
  link.focus();
}

document.getElementById("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  result.textContent = "";
  try {
    keepKey((await post("/api/sign-in", { link: link.value.trim().split("#").pop() })).key);
    location.replace("/");
  } catch (error) {
    result.textContent = error.message;
    button.disabled = false;
    link.focus();
  }
});
