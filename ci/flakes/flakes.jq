# Reports in, flakes out: one object per signature, over all reports.

# Family and protocol do not make another flake; `causes` of a report joins over the same words.
def open_cell:
    split(" ") | map(if IN("IPv4", "IPv6", "TCP", "UDP", "SCTP") then "?" else . end) | join(" ");

def one_line($most):
    gsub("[\\p{C}\\p{Z}\\s]+"; " ") | gsub("^ | $"; "")
    | if length > $most then .[:$most - 1] + "…" else . end;

def checked:
    if type == "object" and .formatVersion == 1 and (.runId | type) == "string" and (.cases | type) == "array" then .
    else error("not a report of format 1") end;

[inputs | checked
    | . as $report
    | (reduce (.cases[] | select(.verdict == "flaky")) as $case ({}; .[$case.id] = $case)) as $flaky
    | (.failureGroups // [])[]
    | [.cases[] | $flaky[.] // empty] as $cases
    | select($cases | length > 0)
    | {
        # As the report has it: the same report may be named twice.
        exact: [$report.runId, .signature],
        signature: {
            candidate: $report.candidate.name,
            requirement: .signature.requirement,
            verb: .signature.verb,
            kind: .signature.kind,
            cell: (.signature.cell | open_cell),
            log: (.signature.log // "")
        },
        sighting: {
            run: ($report.runId | gsub("[^A-Za-z0-9_.-]"; "_") | .[:100]),
            started: ($report.started | one_line(40)),
            version: ($report.candidate.version // ""),
            suite: $report.suite.version,
            kernel: $report.machine.kernel,
            failed: .attempts
        },
        class: (.class // ""),
        example: .example,
        cases: [$cases[] | {run: $report.runId, id, failed: (.failureRate.failed // 0), of: (.failureRate.of // 0)}]
    }]
| unique_by(.exact)
| group_by(.signature)[]
# A case counts once per run, in however many cells it failed.
| (map(.cases[]) | unique_by([.run, .id]) | group_by(.id) | map({id: .[0].id, failed: (map(.failed) | add), of: (map(.of) | add)})
    | sort_by([-.failed, .id])) as $cases
| {
    signature: .[0].signature,
    class: ([.[].class | select(. != "")][0] // ""),
    example: .[0].example,
    cases: $cases,
    # One per run: a report that was named twice, or the families of one signature.
    sightings: (map(.sighting) | group_by(.run) | map(.[0] + {failed: (map(.failed) | add)}) | sort_by(.started) | reverse),
    title: (.[0].signature
        | "Flake: \(.candidate): \(.requirement) \(.verb) \(.kind)" + (if .cell == "" then "" else " (\(.cell))" end)
        | one_line(200))
}
