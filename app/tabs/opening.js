// The opening: a slice of the loss around a recorded run, the two probes of its steps, and the step they give.
(function () {
  "use strict";
  const LOOK = 560, STEP = 700, REST = 2600; // milliseconds: the probes, the step, and the end before it begins again
  const APART = 0.2; // of the probes as drawn
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  function mix(a, b, share) { return a.map((v, i) => Math.round(v + (b[i] - v) * share)); }
  const css = (rgb, alpha = 1) => "rgba(" + rgb.join(",") + "," + alpha + ")";

  function colours(box) {
    const dark = document.body.classList.contains("dark"), style = getComputedStyle(box);
    const low = dark ? [77, 175, 234] : [0, 90, 143], high = dark ? [38, 50, 64] : [222, 233, 242];
    const other = (name) => style.getPropertyValue(name).trim();
    return { low, high, ink: other("--zo-ink"), soft: other("--zo-soft"), good: other("--zo-good"), bad: other("--zo-bad"), panel: other("--zo-panel"), path: dark ? "#FFC766" : "#B24A00" };
  }

  // A camera that looks down the slope: x to the right and towards us, y to the right and away, height up.
  function camera(run, wide, high) {
    const { xs, ys, heights } = run, all = heights.flat(), low = Math.min(...all), top = Math.max(...all);
    const flat = (x, y) => {
      const u = (x - xs[0]) / (xs.at(-1) - xs[0]), v = (y - ys[0]) / (ys.at(-1) - ys[0]);
      return [u * 0.72 + v * 0.28, (1 - v) * 0.44 + u * 0.2];
    };
    const rise = 0.46;
    const at = (x, y, h) => {
      const [a, b] = flat(x, y), lift = ((h - low) / (top - low)) * rise;
      return [wide * (0.02 + 0.96 * a), high * (0.05 + 0.9 * (rise + b - lift) / (rise + 0.64))];
    };
    return { at, share: (h) => (h - low) / (top - low) };
  }

  function between(values, v) {
    const last = values.length - 2;
    const i = Math.max(0, Math.min(last, values.findIndex((_, n) => n > last || v <= values[n + 1])));
    return [i, Math.max(0, Math.min(1, (v - values[i]) / (values[i + 1] - values[i])))];
  }

  function height(run, x, y) {
    const [i, s] = between(run.xs, x), [j, t] = between(run.ys, y), h = run.heights;
    return (h[j][i] * (1 - s) + h[j][i + 1] * s) * (1 - t) + (h[j + 1][i] * (1 - s) + h[j + 1][i + 1] * s) * t;
  }

  function surface(context, run, view, look) {
    const { xs, ys, heights } = run;
    for (let j = ys.length - 2; j >= 0; j--) {
      for (let i = 0; i < xs.length - 1; i++) {
        const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
        const mean = corners.reduce((sum, [a, b]) => sum + heights[b][a], 0) / 4;
        context.beginPath();
        for (const [a, b] of corners) context.lineTo(...view.at(xs[a], ys[b], heights[b][a]));
        context.closePath();
        context.fillStyle = css(mix(look.low, look.high, Math.pow(view.share(mean), 0.7)));
        context.strokeStyle = css(mix(look.low, look.high, Math.pow(view.share(mean), 0.7) * 0.6), 0.55);
        context.fill();
        context.stroke();
      }
    }
  }

  function dot(context, [x, y], radius, fill, rim) {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fillStyle = fill;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = rim;
    context.stroke();
  }

  // What stands at one moment: `beat` steps shown so far, `phase` 0..1 the probes, 1..2 the step to the next place.
  function moment(canvas, run, beat, phase) {
    const ratio = devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
    if (!wide) return;
    const look = colours(canvas), context = canvas.getContext("2d"), view = camera(run, wide, high);
    if (canvas.zoGround?.of !== wide + "/" + look.ink + ratio) {
      canvas.width = wide * ratio; canvas.height = high * ratio;
      const ground = document.createElement("canvas");
      ground.width = canvas.width; ground.height = canvas.height;
      const paint = ground.getContext("2d");
      paint.scale(ratio, ratio);
      surface(paint, run, view, look);
      canvas.zoGround = { of: wide + "/" + look.ink + ratio, ground };
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(canvas.zoGround.ground, 0, 0);
    context.scale(ratio, ratio);
    const places = [...run.beats.map((one) => one.place), run.last.place], spot = (x, y) => view.at(x, y, height(run, x, y));
    const [x0, y0] = places[beat], [x1, y1] = places[Math.min(beat + 1, places.length - 1)], gone = Math.max(0, Math.min(1, phase - 1));
    const eased = gone * gone * (3 - 2 * gone), here = [x0 + (x1 - x0) * eased, y0 + (y1 - y0) * eased];
    context.beginPath();
    for (const place of [...places.slice(0, beat + 1), here]) context.lineTo(...spot(...place));
    context.strokeStyle = look.path; context.lineWidth = 2.5; context.stroke();
    const now = run.beats[beat];
    if (now && phase < 1) {
      const far = APART * Math.min(1, phase * 2.2), ends = [1, -1].map((sign) => [x0 + sign * far * now.direction[0], y0 + sign * far * now.direction[1]]);
      context.setLineDash([4, 3]); context.beginPath();
      for (const end of ends) context.lineTo(...spot(...end));
      context.strokeStyle = look.ink; context.lineWidth = 1.5; context.stroke(); context.setLineDash([]);
      const lower = now.plus < now.minus ? 0 : 1;
      ends.forEach((end, i) => dot(context, spot(...end), 6, phase > 0.5 && i === lower ? look.good : look.panel, look.ink));
    }
    dot(context, spot(...here), 7, look.path, look.panel);
  }

  function sentences(box, run, answers, step) {
    box.querySelector(".zo-now").textContent = step ? "after step " + step : "before the first step";
    box.querySelectorAll(".zo-turn").forEach((row, i) => {
      const best = answers[i].indexOf(Math.max(...answers[i])), right = best === run.sentences[i][1];
      row.classList.toggle("right", right);
      row.querySelector("b").textContent = run.labels[best];
      row.querySelector("em").textContent = right ? "✓" : "✗";
      row.querySelector("em").setAttribute("aria-label", right ? "right" : "wrong");
    });
  }

  window.zoOpening = function (element, recorded) {
    const box = element.querySelector(".zo-opening"), canvas = box.querySelector("canvas"), told = box.querySelector(".zo-told");
    const run = JSON.parse(JSON.stringify(recorded)), count = run.beats.length, button = box.querySelector("button");
    let playing = !still.matches, began = null, shown = -1, at = 0;
    const end = () => { at = count; moment(canvas, run, count, 0); tell(count); };

    function tell(beat) {
      if (beat === shown) return;
      shown = beat;
      const now = run.beats[beat];
      sentences(box, run, now ? now.answers : run.last.answers, now ? now.step - 1 : run.steps);
      told.textContent = now ? "Step " + now.step + ": the loss is " + now.plus.toFixed(4) + " on one side and " + now.minus.toFixed(4) + " on the other. Step to the lower side." : run.steps + " steps, " + 2 * run.steps + " forward passes, no backward pass.";
    }

    function frame(time) {
      if (!playing || !box.isConnected) return;
      if (!canvas.offsetParent || document.hidden) { began = null; setTimeout(() => requestAnimationFrame(frame), 500); return; }
      if (began === null) began = time - at * (LOOK + STEP);
      const passed = time - began, whole = LOOK + STEP;
      if (passed > count * whole + REST) { began = null; at = 0; requestAnimationFrame(frame); return; }
      at = Math.min(count, passed / whole);
      const beat = Math.floor(at), rest = (at - beat) * whole;
      moment(canvas, run, beat, beat === count ? 0 : rest < LOOK ? rest / LOOK : 1 + (rest - LOOK) / STEP);
      tell(beat);
      requestAnimationFrame(frame);
    }

    function turn(on) {
      playing = on;
      button.textContent = on ? "Pause" : "Play";
      began = null;
      if (on) { if (at >= count) at = 0; requestAnimationFrame(frame); }
    }
    button.addEventListener("click", () => turn(!playing));
    new ResizeObserver(() => { if (!playing) moment(canvas, run, Math.floor(at), 0); }).observe(canvas);
    new MutationObserver(() => moment(canvas, run, Math.floor(at), 0)).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    window.zoOpeningAt = (beat, phase) => { turn(false); at = beat; moment(canvas, run, beat, phase); tell(beat); }; // for a film of it
    if (playing) turn(true); else { end(); turn(false); }
  };
})();
