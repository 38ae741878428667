"use strict";
// Every text is set as text: names come from other machines. What is shown, and how, is as page.py writes it.
const REFRESH_MS = 2000;
const ANSWER_MS = 5000; // an agent that takes longer is as good as gone
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const TONES = {
  alive: "good", ok: "good", reachable: "good", suspect: "warn", resting: "warn",
  gone: "bad", cut: "bad", error: "bad", unreachable: "bad",
};
const STATES = ["alive", "suspect", "gone"];
const ZONES_MAX = 5;
const opened = performance.now();

function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return unit ? `${value.toFixed(1)} ${UNITS[unit]}` : `${Math.trunc(value)} B`;
}

function duration(value, whole) {
  if (value < 1 && !whole) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 120) return `${value.toFixed(whole ? 0 : 1)} s`;
  if (value < 7200) return `${Math.trunc(value / 60)} min`;
  return value < 172800 ? `${Math.trunc(value / 3600)} h` : `${Math.trunc(value / 86400)} days`;
}

const FORMS = {
  bytes,
  rate: (value) => `${bytes(value)}/s`,
  ratio: (value) => `${(Math.trunc(value * 1000) / 10).toFixed(1)} %`,
  bar: (value) => `${Math.trunc(value * 100)} %`,
  seconds: (value) => duration(value, false),
  long: (value) => duration(value, true),
  ago: (value) => `${duration(value, true)} ago`,
};

function shown(value, form) {
  if (value === null || value === undefined || value === "") return "-";
  if (typeof value === "number" && FORMS[form]) return FORMS[form](value);
  const text = String(value);
  if (form === "id") return text.slice(0, 12);
  return form === "short" && text.length > 24 ? `${text.slice(0, 19)}…` : text;
}

function derived(status, recent) {
  const addresses = new Map(status.members.map((one) => [one.node_id, one.address]));
  const at = (peer) => peer && peer.split(",").map((id) => addresses.get(id) || id.slice(0, 12)).join(", ");
  return {
    members: status.members.map((one) => ({ ...one, heard: one.node_id === status.node_id ? "this node" : one.last_seen_s })),
    sources: recent.sources,
    transfers: status.transfers.map((one) => ({
      ...one,
      done: one.size ? one.sent_bytes / one.size : 1,
      from: one.sources.map((from) => `${from.registry || at(from.peer)} ${bytes(from.bytes)}`).join("\n")
        || one.registry || at(one.peer),
    })),
    registries: status.registries.map((one) => ({ ...one, standing: standing(one), rests: one.rests_s || null })),
    requests: recent.requests.map((one) => ({
      ...one,
      image: one.repository ? [one.registry, one.repository].filter(Boolean).join("/") : one.path,
      answer: [one.status, one.outcome].filter(Boolean).join(" "),
      from: [one.source, at(one.peer)].filter(Boolean).join(" "),
    })),
  };
}

function standing(one) {
  if (!one.asked) return one.mode === "peers" ? "" : "unasked";
  if (!one.reachable) return "unreachable";
  return one.rests_s ? "resting" : "reachable";
}

function counted(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) || 0) + 1);
  return counts;
}

function summary(members, listed) {
  const states = counted(members.map((one) => one.state));
  const zones = counted(members.map((one) => one.zone || "-"));
  let text = STATES.filter((state) => states.has(state)).map((state) => `${states.get(state)} ${state}`).join(", ");
  if (zones.size > 1) {
    const largest = [...zones].sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1));
    text += `; by zone: ${largest.slice(0, ZONES_MAX).map(([zone, count]) => `${zone} ${count}`).join(", ")}`;
    if (zones.size > ZONES_MAX) text += ` and ${zones.size - ZONES_MAX} more zones`;
  }
  return text + (members.length > listed ? `; the first ${listed} are listed` : "");
}

function fillCell(cell, value, form) {
  const text = shown(value, form);
  if (form === "bar" && typeof value === "number") {
    const bar = document.createElement("progress");
    bar.value = value;
    cell.append(bar);
  }
  cell.append(text);
  if (text !== "-" && text !== String(value) && (form === "short" || form === "id")) cell.title = value;
  if (form === "state") cell.className = TONES[text.split(" ").pop()] || "";
}

function fill(table, rows) {
  const columns = [...table.tHead.rows[0].cells];
  const lines = rows.slice(0, Number(table.dataset.rows)).map((row) => {
    const line = document.createElement("tr");
    for (const { dataset: { column, form }, textContent: head } of columns) {
      const cell = line.insertCell();
      cell.dataset.head = head;
      cell.dataset.form = form;
      fillCell(cell, row[column], form);
    }
    return line;
  });
  if (!lines.length) {
    const line = document.createElement("tr");
    line.className = "empty";
    const cell = line.insertCell();
    cell.colSpan = columns.length;
    cell.textContent = table.dataset.empty;
    lines.push(line);
  }
  table.tBodies[0].replaceChildren(...lines);
  document.querySelector(`[data-count="${table.dataset.list}"]`).textContent = rows.length;
}

async function ask(target) {
  const answer = await fetch(target, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || `HTTP ${answer.status}`);
  return body;
}

function show(status, recent) {
  const lists = derived(status, recent);
  for (const table of document.querySelectorAll("table[data-list]")) fill(table, lists[table.dataset.list]);
  const above = document.querySelector('[data-summary="members"]');
  above.textContent = summary(status.members, Number(document.querySelector('[data-list="members"]').dataset.rows));
  for (const place of document.querySelectorAll("[data-field]")) {
    const value = place.dataset.field.split(".").reduce((part, name) => part[name], status);
    place.textContent = shown(value, place.dataset.form);
  }
  const up = document.querySelector("[data-up]");
  up.textContent = shown(Number(up.dataset.up) + (performance.now() - opened) / 1000, "long");
  const trouble = document.getElementById("trouble");
  trouble.hidden = !status.cache.trouble;
  trouble.textContent = trouble.hidden ? "" : `The cache keeps nothing new: ${status.cache.trouble}`;
  const state = document.getElementById("state");
  state.className = status.ready ? "good" : "bad";
  state.textContent = status.ready ? "ready" : `not ready: ${status.reasons.join("; ")}`;
}

async function refresh() {
  const stale = document.getElementById("stale");
  try {
    const [status, recent] = await Promise.all([ask("api/v1/status"), ask("api/v1/requests")]);
    // back again: perhaps another agent than the one that this page was written by
    if (!stale.hidden && !document.getElementById("subject").value) location.reload();
    show(status, recent);
    stale.hidden = true;
  } catch (error) {
    stale.textContent = `The agent does not answer (${error.message}); what is shown is old.`;
    stale.hidden = false;
  }
  document.body.className = stale.hidden ? "" : "old";
  setTimeout(refresh, REFRESH_MS);
}

function told(answer) {
  const lines = answer.providers.map((one) => [
    one.address, one.zone && `zone ${one.zone}`, one.complete ? "" : "in part", one.claim && one.claim.digest,
  ].filter(Boolean).join(", "));
  if (answer.held) lines.unshift("this node");
  const took = `the answer took ${duration(answer.seconds, false)}`;
  return lines.length ? `${answer.subject} (${took})\n${lines.join("\n")}` : `Nobody has ${answer.subject} (${took})`;
}

async function find(event) {
  event.preventDefault();
  const subject = document.getElementById("subject").value.trim();
  const kind = /^sha(256|512):/.test(subject) ? "digest" : "ref";
  const found = document.getElementById("found");
  found.hidden = false;
  found.textContent = "…";
  try {
    found.textContent = told(await ask(`api/v1/find?${kind}=${encodeURIComponent(subject)}`));
  } catch (error) {
    found.textContent = error.message;
  }
}

document.getElementById("find").addEventListener("submit", find);
setTimeout(refresh, REFRESH_MS);
