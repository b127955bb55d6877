"""How the pages look, in light and in darkness, on a desk and on a phone."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5d666f; --paper: #fff; --line: #d5dae0;
  --shade: #f3f5f7; --s0: #0b62b8; --s1: #c4501b; --s2: #5b6670; --s3: #7d4aa8; --bar: #b9d3ee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --dim: #a0a9b2; --paper: #15181b; --line: #3a4149; --shade: #1f2429;
    --s0: #6cb2f7; --s1: #f29766; --s2: #aab4be; --s3: #c79bea; --bar: #234a73; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
.lead { font-size: 1.1rem; margin: 0 0 1.5rem; }
.dim, .caption, figcaption { color: var(--dim); }
figure { margin: 0; max-width: 48rem; }
.chart { width: 100%; height: auto; display: block; }
.chart text { fill: var(--dim); font-size: 13px; }
.grid { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke: currentColor; stroke-width: 2; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); }
.s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s0 path, .s1 path, .s2 path, .s3 path { fill: currentColor; }
.s0 .line, .s1 .line, .s2 .line, .s3 .line { fill: none; }
.s0 .line { stroke-width: 3; }
.bound { fill: none; stroke: var(--dim); stroke-width: 2; stroke-dasharray: 6 4; }
.key { width: 1.75rem; height: 1rem; vertical-align: -.15em; stroke: currentColor;
  stroke-width: 2; }
.key path { stroke: none; }
.legend { list-style: none; margin: .25rem 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: .1rem 1.25rem; }
.wide { overflow-x: auto; margin: .25rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.caption { margin: 1.25rem 0 0; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 400; position: sticky; left: 0; background: var(--paper); }
.n { text-align: right; }
thead th { white-space: normal; max-width: 12rem; vertical-align: bottom; }
.name { display: inline-block; width: max-content; max-width: 18rem; white-space: normal;
  overflow-wrap: anywhere; font: .85em ui-monospace, Menlo, Consolas, monospace; }
.bar { background: linear-gradient(var(--bar), var(--bar)) no-repeat left / var(--part) 100%;
  display: inline-block; min-width: 4.5rem; padding: 0 .3rem; text-align: right; }
.why { color: var(--dim); display: inline-block; min-width: 13rem; white-space: normal; }
details { border-top: 1px solid var(--line); }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: .5rem 0; }
summary:focus-visible, .wide:focus-visible { outline: 2px solid var(--s0); }
@media (max-width: 40rem) {
  .chart text { font-size: 19px; }
  .name { max-width: 9rem; }
  th, td { padding: .25rem .4rem; }
}
@media print { details > * { display: block; } }
"""
