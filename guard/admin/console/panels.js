// One function per panel: from a snapshot of the guard to elements.
import { clock, duration, el, number, spark, state, table, zone } from "/console/draw.js";
import { t } from "/console/words.js";

const $ = id => document.getElementById(id);

function card(kind, title, text) { return el("div", { class: `card ${kind}` }, el("b", {}, title), el("span", {}, text)); }

export function health(snapshot) {
  const { health: h, ready, slo } = snapshot;
  $("service").textContent = slo.service;
  $("version").textContent = `sft-guard ${h.version}`;
  document.title = `${slo.service} - sft-guard`;
  const breaches = slo.objectives.filter(o => o.state === "breach").length;
  const unknown = slo.objectives.filter(o => o.state === "unknown").length;
  const cards = [
    card(ready.ready ? "ok" : "bad", t("serving"), ready.ready ? `${t("ready")}, ${t("up")} ${duration(h.uptime_s)}` : `${t("not-ready")}: ${ready.reasons.join("; ")}`),
    card(breaches ? "bad" : unknown ? "warn" : "ok", t("objectives"), `${slo.objectives.length - breaches - unknown} ${t("ok")}, ${breaches} ${t("breach")}, ${unknown} ${t("unknown")}`),
    ...h.parts.map(p => card({ ok: "ok", degraded: "warn" }[p.status] ?? "dim", p.name, `${t(p.status)}${p.detail && p.detail !== p.status ? `: ${p.detail}` : ""}`)),
  ];
  $("health").replaceChildren(...cards);
}

function made(view) {
  if (!view) return t("none");
  const parts = ["model", "adapter", "kb", "prompt", "policy"].map(p => view[p]).filter(Boolean).join(" × ");
  return `${view.name} [${view.release}] ${parts}`;
}

export function release(snapshot) {
  const r = snapshot.release;
  const share = Math.round(r.canary_ratio * 1000) / 10, rest = Math.round((1 - r.canary_ratio) * 1000) / 10;
  const rolling = r.phase === "rolling_out", paused = r.phase === "paused";
  const bar = el("div", { class: "bar", role: "img", "aria-label": `${t("stable")} ${rest} %, ${t("canary")} ${share} %` }, el("i"), el("i", { class: "canary" }));
  bar.children[0].style.width = `${rest}%`;
  bar.children[1].style.width = `${share}%`;
  const rows = [
    [t("phase"), el("span", { class: r.phase === "rolled_back" ? "bad" : null }, t(r.phase))], [t("mode"), r.mode],
    [t("stable"), `${made(r.stable)} — ${rest} %`], [t("canary"), r.canary ? `${made(r.canary)} — ${share} %` : t("none")],
    [t("previous"), made(r.previous)],
    ...["reason", "recommendation"].filter(k => r[k]).map(k => [t(k), r[k]]),
    ...(r.conditions.length ? [[t("conditions"), el("span", { class: "warn" }, r.conditions.join(", "))]] : []),
    ...(r.shedding ? [[t("shedding"), el("span", { class: "warn" }, t("shedding-on"))]] : []),
    ...(r.incident_id ? [[t("incident"), el("button", { type: "button", class: "link", "data-incident": r.incident_id }, r.incident_id)]] : []),
    ...(r.hallucination ?? []).filter(h => h.rate_ratio != null).map(h => [`${t("corrected")} (${h.name})`,
      `${(100 * h.rate_ratio).toFixed(1)} % [${(100 * h.low_ratio).toFixed(1)}, ${(100 * h.high_ratio).toFixed(1)}], ${h.label_count} ${t("labels")}`]),
    [t("epoch"), String(r.epoch)],
  ];
  const stages = el("ol", { class: "stages", "aria-label": t("stage") });
  const staged = r.stage_number > 0 && (rolling || paused); // what was rolled back is on no stage
  if (staged) {
    for (let n = 1; n <= r.stage_count; n += 1) stages.append(el("li", { "aria-current": n === r.stage_number ? "step" : null },
      n === r.stage_number ? `${n}: ${duration(r.stage_held_s)} / ${duration(r.stage_hold_s)}, ${r.stage_events_count} / ${r.stage_min_events_count}` : String(n)));
  }
  const facts = el("dl", {}, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  $("release").replaceChildren(bar, ...(staged ? [stages] : []), facts);
  const can = { pause: rolling, resume: paused, promote: rolling || paused, abort: rolling || paused, rollback: rolling || paused || r.phase === "promoted", drill: true };
  for (const button of document.querySelectorAll("[data-action]")) button.disabled = !can[button.dataset.action];
}

export function objectives(snapshot, courses) {
  const heads = [{ label: t("objective") }, { label: t("state") }, { label: t("value"), n: true }, { label: t("limit"), n: true },
    { label: t("budget"), n: true }, { label: t("course") }, { label: t("events"), n: true }, { label: t("window") }, { label: t("action") }, { label: t("why"), class: "why" }];
  const rows = snapshot.slo.objectives.map(o => {
    const course = courses.get(`${o.slo} ${o.release}`);
    const compared = o.comparison ? el("div", {}, `${t("verdict")}: `, state(o.comparison.result)) : null;
    return [
      `${o.slo} (${t(o.arm)})`,
      el("div", {}, state(o.state, `${t(o.state)}${o.firing ? `, ${t("firing")}` : ""}`), compared),
      number(o.value, o.unit), number(o.threshold, o.unit),
      o.budget_remaining_ratio === null ? "" : number(o.budget_remaining_ratio, "ratio"),
      course ? spark(course.points, course.limit, o.arm === "canary", `${o.slo} ${t("course")}`) : "",
      `${o.events_count} / ${o.min_events_count}`, duration(o.window_s), o.action,
      o.comparison ? [el("div", {}, o.reason), el("div", {}, `${t("beside")}: ${o.comparison.reason}`)] : o.reason,
    ];
  });
  table($("slo"), heads, rows);
}

export function incidents(snapshot) {
  const heads = [{ label: `${t("time")} (${zone()})` }, { label: t("kind") }, { label: t("title") }, { label: t("ended") }, { label: "ID" }];
  table($("incidents"), heads, (snapshot.incidents ?? []).map(i => [
    clock(i.opened_wall_s), i.kind, i.title, i.closed_wall_s ? clock(i.closed_wall_s) : el("span", { class: "warn" }, t("open")),
    el("button", { type: "button", class: "link", "data-incident": i.id }, i.id),
  ]), snapshot.incidents ? undefined : t("unreadable"));
}

export function closing(id) {
  return [
    el("label", { for: "close-reason" }, t("close-why")),
    el("input", { id: "close-reason", maxlength: "500", autocomplete: "off" }),
    el("button", { type: "button", "data-closes": id }, t("close-it")),
    el("p", { id: "close-said", role: "status", "aria-live": "polite" }),
  ];
}

export function drift(snapshot) {
  table($("drift"), [{ label: t("component") }, { label: t("arm") }, { label: t("score"), n: true }, { label: t("why"), class: "why" }],
    snapshot.drift.map(d => [d.component, el("code", {}, d.release), d.score === null ? t("unknown") : d.score.toFixed(3), [t(d.state), d.reason].filter(Boolean).join(": ")]));
}

export function cost(snapshot) {
  const rows = snapshot.slo.objectives.filter(o => o.unit === "usd" || o.indicator === "sft_cache_hit_rate")
    .map(o => [o.indicator === "sft_cache_hit_rate" ? t("hits") : t("each"), `${t(o.arm)} ${o.release}`, number(o.value, o.unit)]);
  if (snapshot.saved_usd !== null) rows.push([t("saved"), "", number(snapshot.saved_usd, "usd")]);
  table($("cost"), [{ label: t("kind") }, { label: t("arm") }, { label: t("value"), n: true }], rows);
}

export function exchanges(list) {
  const heads = [{ label: `${t("time")} (${zone()})` }, { label: t("exchange") }, { label: t("route") }, { label: t("arm") }, { label: t("outcome") },
    { label: t("seconds"), n: true }, { label: t("tokens"), n: true }, { label: t("usd"), n: true }, { label: t("cache") }, { label: t("findings") }];
  table($("exchanges"), heads, list.map(x => {
    const failed = x.findings.filter(f => f.result === "fail" || f.result === "unavailable");
    const said = x.findings.length ? failed.length ? failed.map(f => el("div", { class: f.result === "fail" ? "bad" : "warn" }, `${f.check}: ${f.reason || t(f.result)}`)) : state("ok") : "";
    return [
      clock(x.wall_s), el("button", { type: "button", class: "link", "data-exchange": x.exchange_id }, x.exchange_id), x.route,
      `${t(x.arm)}`, el("span", { class: x.outcome === "ok" ? null : "warn" }, `${x.outcome}${x.reason ? ` (${x.reason})` : ""}`),
      x.duration_s.toFixed(3), x.input_tokens === null && x.output_tokens === null ? "" : `${x.input_tokens ?? "–"} / ${x.output_tokens ?? "–"}`,
      x.cost_usd === null ? "" : x.cost_usd.toFixed(6), x.cache, el("div", {}, said),
    ];
  }));
}

export function incidentDetail(i) {
  const body = [el("p", {}, i.reason)];
  if (i.aftermath && i.aftermath.words) body.push(el("h3", {}, t("recovery")), el("p", {}, i.aftermath.words));
  body.push(el("h3", {}, `${t("timeline")} (${zone()})`), el("ul", {}, i.timeline.map(e => el("li", {}, `${clock(e.wall_s)} ${e.what}`))));
  if (i.evidence.length) body.push(el("h3", {}, t("evidence")), el("ul", {}, i.evidence.map(e => el("li", {}, e.reason))));
  if (i.differences.length) body.push(el("h3", {}, t("differences")), el("ul", {}, i.differences.map(d => el("li", {}, `${d.part}: ${d.before || "–"} → ${d.after || "–"}`))));
  return [i.title, body];
}
