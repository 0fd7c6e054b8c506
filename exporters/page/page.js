"use strict";
// Shows /status and /jobs, which are asked for again and again. Everything is written as text.
const powerPoints = 300, power = [];
const at = id => document.getElementById(id);
const known = (v, digits) => v === undefined || v === null ? "–" : v.toFixed(digits);
const span = s => s === undefined || s === null ? "–" : s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " days";
const since = (now, then) => then ? span((Date.parse(now) - Date.parse(then)) / 1000) : "–";

const count = (n, noun) => n + " " + noun + (n === 1 ? "" : "s");

function element(name, text, kind) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (kind) e.className = kind;
  return e;
}
function row(cells) {
  const tr = element("tr");
  for (const c of cells) tr.append(c instanceof Node ? c : element("td", c));
  return tr;
}
function list(id, pairs) {
  at(id).replaceChildren(...pairs.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function showJob(j, i) {
  const box = element("div", undefined, "job"), p = j.progress, id = j.key.job_id;
  box.append(element("p", (id ? id + " attempt " + j.key.attempt : "job " + (i + 1)) + (j.scenario ? ", " + j.scenario : "") + ", " + j.phase + (j.encoder ? ", " + j.encoder : "")));
  const bar = element("progress");
  bar.max = 100;
  if (j.phase === "fetch" && j.fetch && j.fetch.total > 0) bar.value = 100 * j.fetch.bytes / j.fetch.total;
  else if (p.percent > 0 || j.phase !== "prepare") bar.value = p.percent;
  box.append(bar);
  box.append(element("p", known(p.percent, 0) + " %, " + (p.fps ? known(p.fps, 1) : "–") + " fps, " + (p.speed ? known(p.speed, 2) : "–") + "×, " + span(j.eta_seconds) + " left, " +
    known(j.power_watts, 1) + " W, " + known(j.joules, 0) + " J" + (j.power_watts !== undefined ? " (" + j.energy_source + ")" : "")));
  return box;
}

function show(s) {
  at("node").textContent = s.address || "ffmpeg-agent";
  document.title = (s.address || "agent") + ", ffmpeg-agent";
  const failing = (s.checks || []).filter(c => c.reason);
  const parts = [s.version, "up " + since(s.at, s.started_at), s.session ? "registered" + (s.session.master ? " with " + s.session.master : "") : "not registered",
    "last heartbeat " + since(s.at, s.heartbeat && s.heartbeat.last_success) + " ago", s.jobs.length + " of " + s.slots + " slots in use"];
  if (s.draining) parts.push("draining");
  at("summary").textContent = parts.join(" · ");
  at("summary").className = failing.length ? "bad" : "";
  at("problems").hidden = !failing.length;
  at("checks").replaceChildren(...failing.map(c => element("li", c.name + ": " + c.reason, "bad")));
  at("watts").textContent = s.power_watts === undefined ? "unknown" : known(s.power_watts, 1) + " W, " + s.energy_source;
  power.push(s.power_watts === undefined ? null : s.power_watts);
  power.splice(0, power.length - powerPoints);
  drawPower();
  at("jobs").replaceChildren(...(s.jobs.length ? s.jobs.map(showJob) : [element("p", "none")]));
  const c = s.counts;
  list("counts", [["jobs", c.jobs_completed + " completed, " + c.jobs_failed + " failed" + (c.failed === c.jobs_failed ? "" : " in " + count(c.failed, "attempt")) + ", " + c.jobs_canceled + " canceled"],
    ["results", c.delivered + " delivered, " + s.journal.unsent + " waiting, " + s.journal.dead_letters + " rejected for good"],
    ["energy charged to jobs", (c.energy || []).map(e => e.codec + " " + known(e.joules, 0) + " J " + e.source).join(", ") || "none"]]);
  list("sensors", (s.samplers || []).map(x => [x.name, x.absent || x.error || x.source + ", " + count(x.zones, "zone")]).concat(s.host ? [["host", "CPU " + known(s.host.cpu_load_percent, 0) + " %" +
    (s.host.temperature_celsius === undefined ? "" : ", " + known(s.host.temperature_celsius, 0) + " °C")]] : []));
  at("actors").replaceChildren(...s.actors.map(a => row([actorCell(a.path), element("td", a.state, a.state === "running" ? "good" : "bad"), String(a.restarts), String(a.mailbox_depth), a.last_failure || ""])));
}

function actorCell(path) {
  const parts = path.split("/"), name = parts[parts.length - 1], cell = element("td", "\u2003".repeat(parts.length - 1) + (name.length > 22 ? name.slice(0, 21) + "…" : name));
  cell.title = path;
  return cell;
}

function drawPower() {
  const values = power.filter(v => v !== null);
  if (!values.length) return;
  const low = Math.min(...values), high = Math.max(...values), height = Math.max(high - low, high * 0.05) || 1;
  const step = 600 / Math.max(29, power.length - 1); // the latest on the right, and at least a minute
  at("curve").setAttribute("points", power.map((v, i) => v === null ? "" : (600 - (power.length - 1 - i) * step).toFixed(1) + "," + (112 - (v - low) / height * 104).toFixed(1)).join(" "));
  at("range").textContent = known(low, 1) + " to " + known(high, 1) + " W in the last " + span(power.length * 2);
}

function showRecent(jobs) {
  at("recent").replaceChildren(...jobs.map(j => {
    const id = element("td"), link = element("a", j.job_id.length > 13 ? j.job_id.slice(0, 12) + "…" : j.job_id);
    link.title = j.job_id;
    link.href = "/report?job=" + encodeURIComponent(j.job_id) + "&attempt=" + j.attempt;
    id.append(link);
    const outcome = j.status === "completed" ? "good" : j.status === "failed" ? "bad" : "";
    return row([j.sequence_number ? String(j.sequence_number) : "–", element("td", j.status, outcome), id, String(j.attempt), j.scenario,
      j.joules === null ? "–" : known(j.joules, 1) + (j.source === "measured" ? "" : " " + j.source), j.finished_at ? new Date(j.finished_at).toLocaleString() : "–", j.status === "completed" ? j.output || "not kept" : j.error || ""]);
  }));
  at("recentnote").textContent = jobs.length ? "" : "none";
}

async function poll(path, every, show, refused) {
  for (;;) {
    try {
      const answer = await fetch(path, { cache: "no-store" });
      if (answer.status === 403) refused();
      else if (!answer.ok) throw new Error(path + ": " + answer.status);
      else show(await answer.json());
    } catch (e) {
      at("summary").textContent = "no answer from the agent: " + e.message;
      at("summary").className = "bad";
    }
    await new Promise(next => setTimeout(next, every));
  }
}
poll("/status", 2000, show, () => {});
poll("/jobs", 5000, showRecent, () => { at("recentnote").textContent = "Shown on the machine itself, or behind a login: set basic_auth_users in exporters.web_config."; });
