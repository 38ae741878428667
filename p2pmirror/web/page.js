"use strict";
// Every text is set as text: names come from other machines.
const REFRESH_MS = 2000;
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function shown(value, form) {
  if (value === null || value === undefined) return "-";
  if (typeof value === "number") {
    if (form === "ratio") return `${(value * 100).toFixed(1)} %`;
    if (form === "ago") return `${value.toFixed(0)} s ago`;
    if (form === "seconds") return value < 1 ? `${(value * 1000).toFixed(1)} ms` : `${value.toFixed(1)} s`;
    if (form === "bytes") {
      let unit = 0;
      while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
      return unit ? `${value.toFixed(1)} ${UNITS[unit]}` : `${value} B`;
    }
  }
  const text = String(value);
  return form === "short" && text.length > 24 ? `${text.slice(0, 19)}…` : text;
}

function fill(table, rows) {
  const columns = [...table.tHead.rows[0].cells].map((cell) => cell.dataset);
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    for (const { column, form } of columns) {
      const cell = line.insertCell();
      cell.textContent = shown(row[column], form);
      if (form === "short" && row[column] != null) cell.title = row[column];
    }
    return line;
  }));
  document.querySelector(`[data-count="${table.dataset.list}"]`).textContent = rows.length;
}

async function ask(target) {
  const answer = await fetch(target, { cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || `HTTP ${answer.status}`);
  return body;
}

async function refresh() {
  const stale = document.getElementById("stale");
  try {
    const [status, recent] = await Promise.all([ask("api/v1/status"), ask("api/v1/requests")]);
    const lists = { ...status, requests: recent.requests };
    for (const table of document.querySelectorAll("table[data-list]")) fill(table, lists[table.dataset.list]);
    for (const place of document.querySelectorAll("[data-field]")) {
      const value = place.dataset.field.split(".").reduce((part, name) => part[name], status);
      place.textContent = shown(value, place.dataset.form);
    }
    const state = document.getElementById("state");
    state.className = status.ready ? "good" : "bad";
    state.textContent = status.ready ? "ready" : `not ready: ${status.reasons.join("; ")}`;
    stale.hidden = true;
  } catch (error) {
    stale.textContent = `The agent does not answer (${error.message}); what is shown is old.`;
    stale.hidden = false;
  }
  setTimeout(refresh, REFRESH_MS);
}

async function find(event) {
  event.preventDefault();
  const subject = document.getElementById("subject").value.trim();
  const kind = /^sha(256|512):/.test(subject) ? "digest" : "ref";
  const found = document.getElementById("found");
  found.hidden = false;
  found.textContent = "…";
  try {
    const answer = await ask(`api/v1/find?${kind}=${encodeURIComponent(subject)}`);
    const lines = answer.providers.map((one) => `${one.address}${one.zone ? ` in ${one.zone}` : ""}${one.complete ? "" : " (in part)"}`);
    if (answer.held) lines.unshift("this node");
    found.textContent = `${lines.length ? lines.join("\n") : "nobody"}\n(${(answer.seconds * 1000).toFixed(1)} ms)`;
  } catch (error) {
    found.textContent = error.message;
  }
}

document.getElementById("find").addEventListener("submit", find);
setTimeout(refresh, REFRESH_MS);
