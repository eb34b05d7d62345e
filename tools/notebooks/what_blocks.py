# %% [markdown]
# # What blocks this server?
#
# An analysis of the trace that `cargo xtask demo` records, question by question; it works with any trace of polletto's.
# Open it as a notebook (VS Code, or `jupytext --to ipynb`), or run it as it is:
#
#     pip install perfetto
#     python3 tools/notebooks/what_blocks.py demo.perfetto-trace

# %%
import os
import pathlib
import shutil
import sys

from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

TRACE = sys.argv[1] if len(sys.argv) == 2 and "__file__" in globals() else "demo.perfetto-trace"
REPOSITORY = pathlib.Path(__file__).resolve().parents[2] if "__file__" in globals() else pathlib.Path.cwd()
# Downloaded by the package if there is none.
SHELL = os.environ.get("TRACE_PROCESSOR") or shutil.which("trace_processor_shell")

config = TraceProcessorConfig(bin_path=SHELL, add_sql_packages=[str(REPOSITORY / "tools/sql/polletto")])
trace = TraceProcessor(trace=TRACE, config=config)


def written(value):
    """As people read it."""
    if value is None:
        return ""
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def ask(question, sql):
    """Prints the answer as a table."""
    rows = trace.query(sql)
    columns = rows.column_names
    lines = [columns] + [[written(getattr(row, column)) for column in columns] for row in rows]
    widths = [min(max(len(line[at]) for line in lines), 60) for at in range(len(columns))]
    print(f"\n{question}\n")
    for line in lines:
        print("  ".join(cell[-width:].ljust(width) for cell, width in zip(line, widths)).rstrip())


# %% [markdown]
# ## Is the trace good enough to ask?
#
# Polls are told exactly while probes are attached. A small share says that the budget was spent, and what follows is of
# that share alone.

# %%
ask("For which share of the time were polls observed?", """
INCLUDE PERFETTO MODULE polletto.overhead;
SELECT pid, process.name, recorded_ns / 1e9 AS recorded_s, round(100 * share, 1) AS percent
FROM polletto_observed
JOIN process USING (upid)
""")

# %% [markdown]
# ## How bad is it?
#
# A worker that is in one poll polls nothing else. So the sum of the long ones is time that other tasks waited for.

# %%
ask("What took 5 ms or more?", """
INCLUDE PERFETTO MODULE polletto.findings;
SELECT kind, iif(kind = 'slept in poll', detail, NULL) AS waited_for, count() AS times, sum(dur) / 1e6 AS ms,
  max(dur) / 1e6 AS longest_ms
FROM polletto_default_findings
GROUP BY kind, waited_for
ORDER BY ms DESC
""")

# %% [markdown]
# ## Whose line is it?
#
# The first function of the program's own code on each callstack, and what it called that took so long. Of the demo
# these are its endpoints that block; how it was built does not matter, as long as it has line tables.

# %%
ask("Where in my code, and what is it about?", """
INCLUDE PERFETTO MODULE polletto.categories;
INCLUDE PERFETTO MODULE polletto.findings;
SELECT found.kind, about.category, found.own_function, found.own_source, count() AS times, sum(found.dur) / 1e6 AS ms
FROM polletto_default_findings AS found
LEFT JOIN polletto_categories AS about USING (callsite_id)
WHERE found.own_function IS NOT NULL
GROUP BY found.kind, about.category, found.own_function, found.own_source
HAVING times > 1
ORDER BY ms DESC
""")

# %% [markdown]
# ## Is that all of the work, or only the part that is noticed?
#
# Short polls add up as well. This is all that ran in polls, long or not, and all that slept in them.

# %%
ask("What do polls spend their time with?", """
INCLUDE PERFETTO MODULE polletto.categories;
SELECT coalesce(category, '(none of these)') AS about, sum(cpu_ns) / 1e6 AS cpu_ms, sum(off_cpu_ns) / 1e6 AS slept_ms,
  sum(polls) AS polls
FROM polletto_category_hotspots
GROUP BY about
ORDER BY cpu_ms + slept_ms DESC
""")

# %% [markdown]
# ## Who pays for it?
#
# Tasks that were woken while every worker was kept. What was polled meanwhile is in `detail`.

# %%
ask("Which tasks had to wait, and for what?", """
INCLUDE PERFETTO MODULE polletto.findings;
SELECT detail, count() AS times, max(dur) / 1e6 AS longest_ms
FROM polletto_default_findings
WHERE kind = 'starved task'
GROUP BY detail
ORDER BY longest_ms DESC
LIMIT 10
""")

# %% [markdown]
# ## When?
#
# Evenly, or all at once: the first is the code, the second may be a job beside it.

# %%
ask("How much of each second went to findings?", """
INCLUDE PERFETTO MODULE polletto.findings;
SELECT (ts - trace_start()) / 1000000000 AS second, count() AS times, sum(dur) / 1e6 AS ms
FROM polletto_default_findings
WHERE kind NOT IN ('starved task', 'lock convoy')
GROUP BY second
ORDER BY second
""")

# %%
trace.close()
