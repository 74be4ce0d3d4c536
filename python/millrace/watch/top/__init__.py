"""`millrace top`: the network path at a glance, second by second.

| module | what it does |
|---|---|
| `sample` | looks at everything once |
| `tick` | turns two looks into rows of rates: plain data, one JSON object a tick |
| `flows`, `events` | what outlives a tick: averages and totals of flows, the timeline |
| `views` | which rows a view shows, with which columns |
| `render` | a view as lines of text that fit a width |
| `record` | ticks to a file and back |
| `app` | the full screen |
| `serve`, `page.html` | the same in a browser |

Everything behind `tick` knows only ticks, so a recording shows what was seen.
"""
