"""How the page looks: light, dark and print; a phone or a desk. CSS, no font and no request."""

# Colours: dark enough for 4.5 : 1 as text in both themes, and apart for red-green colour-blind
# eyes.
STYLE = """
/* colours: light, then dark */
:root {
  color-scheme: light dark; --page: #fff; --text: #1d2228; --soft: #59616b; --line: #dde1e6;
  --panel: #f5f6f8; --grid: #e6e9ed; --ce: #b4530b; --aucm: #1b62a8; --final: #0f7a55;
  --other: #7a4ba0; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --text: #e4e7ea; --soft: #a2abb5; --line: #363c43; --panel: #1d2125;
    --grid: #2a3036; --ce: #f0a35e; --aucm: #74b4f2; --final: #5fc79c; --other: #c59ae6;
    --bad: #ff8a80;
  }
}
/* the page and its text */
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 72rem; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.65rem; line-height: 1.2; margin: .6rem 0 .2rem; }
h2 { font-size: 1.2rem; margin: 0 0 .3rem; }
h3 { font-size: .95rem; margin: 1rem 0 .2rem; }
p { margin: .4rem 0; max-width: 48rem; }
.soft, .source, figcaption, caption { color: var(--soft); }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.1rem; }
nav { font-size: .9rem; line-height: 1.9; }
nav a { margin-right: .9rem; white-space: nowrap; }
a { color: var(--aucm); }
/* what nobody may overlook */
.notice {
  max-width: none; margin: 0; padding: .6rem 1rem; border: 3px solid var(--bad);
  color: var(--bad); font-size: 1.7rem; font-weight: 700; text-align: center;
}
/* the figures at the top */
.head { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; }
.head div { background: var(--panel); border-radius: 8px; padding: .6rem .9rem; flex: 1 1 9rem; }
.head b {
  display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums;
}
.head span { color: var(--soft); font-size: .85rem; }
/* tables */
.wide { overflow-x: auto; margin: .6rem 0; }
table {
  border-collapse: collapse; min-width: 18rem; font-size: .87rem;
  font-variant-numeric: tabular-nums;
}
caption { text-align: left; padding: .2rem 0; font-size: .85rem; }
th, td {
  padding: .22rem .7rem .22rem 0; text-align: right; white-space: nowrap; vertical-align: middle;
  border-bottom: 1px solid var(--grid);
}
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td, .words tbody th { white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; border-bottom-color: var(--line); }
tbody th { font-weight: 500; white-space: normal; min-width: 7rem; max-width: 26rem; }
tr.strong td, tr.strong th { font-weight: 700; }
td.draw { width: 13rem; min-width: 9rem; padding-right: 1rem; }
.ends { display: flex; justify-content: space-between; padding-right: .4rem; }
td.cell {
  background: color-mix(in srgb, var(--aucm) calc(var(--v) * 45%), transparent); text-align: center;
  padding: .3rem .5rem;
}
/* figures */
.panels {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr));
  gap: .6rem 1.2rem; margin: .6rem 0;
}
.panels.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; break-inside: avoid; }
.panels > * { min-width: 0; }
figcaption { font-size: .85rem; }
figcaption b { color: var(--text); }
/* drawings */
svg.plot { width: 100%; height: auto; display: block; max-width: 27rem; }
svg.plot text { font-size: 11px; fill: var(--soft); font-family: inherit; }
svg.bar { width: 100%; display: block; overflow: visible; }
.grid { stroke: var(--grid); stroke-width: 1; }
.zero { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.area { fill: currentColor; fill-opacity: .2; stroke: none; }
.dot { fill: currentColor; }
.thin { stroke-width: 1; stroke-opacity: .45; }
.dashed { stroke-dasharray: 5 3; }
.dotted { stroke-dasharray: 1.5 3; }
.theirs { fill: var(--page); stroke: var(--text); stroke-width: 1.3; }
/* colours of stages */
.c-ce { color: var(--ce); }
.c-aucm { color: var(--aucm); }
.c-final { color: var(--final); }
.c-other { color: var(--other); }
.c-soft { color: var(--soft); }
.bad { color: var(--bad); }
/* legends */
.key { display: inline-block; margin-right: 1.1rem; font-size: .87rem; }
.key i {
  display: inline-block; width: 1.3rem; height: .65rem; margin-right: .4rem; border-radius: 2px;
  background: currentColor; vertical-align: baseline;
}
.key span { color: var(--text); }
.key i.band { opacity: .35; }
.key i.thin { height: 2px; vertical-align: middle; opacity: .7; }
.key i.dashed {
  height: 0; background: none; border-top: 2px dashed currentColor; vertical-align: middle;
  border-radius: 0;
}
/* the gallery */
.images {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .8rem;
  margin: .6rem 0;
}
.images.pairs { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.images figure > div { display: flex; gap: 3px; }
.images img {
  flex: 1 1 0; min-width: 0; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain;
  border-radius: 6px; background: #000; display: block;
}
.images figcaption {
  font-size: .78rem; line-height: 1.35; overflow-wrap: anywhere; margin-top: .25rem;
}
/* what the colours of a heat map mean */
.heat { display: flex; align-items: center; gap: .6rem; font-size: .8rem; color: var(--soft); }
.ramp {
  flex: 0 1 12rem; height: .8rem; border-radius: 3px; background-color: #777;
}
/* the facts of the first screen */
.answer { font-size: 1.15rem; max-width: none; margin: .6rem 0; }
.facts {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem .9rem; margin: .6rem 0;
  font-size: .85rem; line-height: 1.4;
}
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.top { font-size: .8rem; margin-top: .8rem; }
/* small print */
.source { font-size: .8rem; overflow-wrap: anywhere; max-width: none; }
code { font-size: .92em; overflow-wrap: anywhere; }
ul { margin: .4rem 0; padding-left: 1.2rem; max-width: 52rem; }
/* a phone */
@media (max-width: 40rem) {
  body { padding: .6rem .8rem 3rem; }
  h1 { font-size: 1.35rem; }
  .head div { flex-basis: 42%; padding: .5rem .7rem; }
  .head b { font-size: 1.2rem; }
  .images { grid-template-columns: repeat(2, 1fr); }
  .images.pairs { grid-template-columns: 1fr; }
  td.draw { min-width: 6.5rem; }
  th, td { padding-right: .5rem; font-size: .8rem; }
  tbody th { white-space: normal; min-width: 6.5rem; max-width: 9rem; }
  /* the first column stays where a table scrolls sideways */
  tbody th, thead th:first-child {
    position: sticky; left: 0; background: var(--page); padding-left: 0; z-index: 1;
  }
  .answer { font-size: 1.05rem; }
  .facts { grid-template-columns: 1fr; gap: 0; font-size: .78rem; }
  .facts dt { margin-top: .3rem; }
  svg.plot text { font-size: 12px; }
}
/* paper */
@media print {
  :root {
    --page: #fff; --text: #000; --soft: #444; --line: #bbb; --panel: #f3f3f3; --grid: #ddd;
    --ce: #b4530b; --aucm: #1b62a8; --final: #0f7a55; --other: #7a4ba0; --bad: #b3261e;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .top { display: none; }
  section { margin-top: 1rem; }
  .panels, .panels.pairs { grid-template-columns: 1fr 1fr; }
  .images { grid-template-columns: repeat(4, 1fr); }
  .images.pairs { grid-template-columns: repeat(2, 1fr); }
  td.draw { width: 9rem; min-width: 6rem; }
  .wide { overflow: visible; }
  tr, img { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
