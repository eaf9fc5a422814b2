# A flake in, the text of its issue out. $key is the digest of its signature, $issue[0] the issue as it is or null, $address that of the workflow run.

def one_line($most):
    gsub("[\\p{C}\\p{Z}\\s]+"; " ") | gsub("^ | $"; "")
    | if length > $most then .[:$most - 1] + "…" else . end;

# Texts come from candidates' logs. As character references inside <code> nothing in them is Markdown, HTML, a comment, a mention or a link.
def code:
    one_line(300)
    | if . == "" then "" else
        "<code>" + (explode | map(
            if (. >= 48 and . <= 57) or (. >= 65 and . <= 90) or (. >= 97 and . <= 122) or . == 32 or . == 45 or . == 46 or . > 127
            then [.] | implode else "&#\(.);" end) | join("")) + "</code>"
      end;

def first_line: "<!-- harness-flake \($key) -->";
def last_line: "<!-- end of what the harness writes; what you write below stays -->";
def row_start: "| <!-- seen ";

# What the issue says already, by lines. A part without an end is not ours any more.
(($issue[0].body // "") | gsub("\r\n"; "\n") | split("\n")) as $lines
| ($lines | index(last_line)) as $stop
| (if $stop == null then [] else $lines[:$stop] end | map(select(startswith(row_start)))) as $rows
| (if $issue[0] == null then [] elif $stop == null then [""] + $lines[1:] else $lines[$stop + 1:] end) as $below
| (.sightings | map(
    "\(row_start)\(.run) --> "
    + (if $address == "" then (.run | code) else "[\(.run | gsub("_"; "\\_"))](\($address))" end)
    + " | \(.started | code) | \(.version | code) | \(.suite | code) | \(.kernel | code) | \(.failed) |")) as $new
| ($new | map(split(" -->")[0] + " -->")) as $known
| ($new + ($rows | map(select((split(" -->")[0] + " -->") as $start | $known | index([$start]) | not)))) as $all
# A run is told once, and stays where it is, so that telling it again changes nothing.
| (if ($rows | length) > 0 and ($known | all(. as $start | $rows | any(startswith($start))))
   then ($rows | map(. as $row | ($new | map(select(startswith(($row | split(" -->")[0]) + " -->")))[0]) // $row))
   else $all end) as $all
# The first sighting is kept, however long ago it was.
| (if ($all | length) > 30 then $all[:29] + [$all[-1]] else $all end) as $seen
| [
    first_line,
    "Attempts of these cases fail in some worlds and pass in others. The harness keeps this part up to date.",
    "",
    "| | |",
    "|---|---|",
    "| Candidate | \(.signature.candidate | code) |",
    "| Requirement | \(.signature.requirement | code) |",
    "| Step | \(.signature.verb | code) |",
    "| Mismatch | \(.signature.kind | code) |",
    (if .signature.cell == "" then empty else "| Cell | \(.signature.cell | code) |" end),
    (if .signature.log == "" then empty else "| Candidate's log | \(.signature.log | code) |" end),
    (if .class == "" then empty else "| Class | \(.class | code) |" end),
    "| Example | \(.example | code) |",
    "",
    "In the last run that showed it:",
    "",
    "| Case | Failed | Attempts |",
    "|---|--:|--:|",
    (.cases[:20][] | "| \(.id | code) | \(.failed) | \(.of) |"),
    (if (.cases | length) > 20 then "| and \((.cases | length) - 20) more | | |" else empty end),
    "",
    "| Seen in run | Started | Version | Suite | Kernel | Attempts that failed so |",
    "|---|---|---|---|---|--:|",
    $seen[],
    "",
    "To see it again: `harness certify --runs 100 --filter CASE` with the candidate and a case from above; the run's reports name seeds.",
    "",
    last_line
  ] + (if $issue[0] == null then [""] else $below end)
| join("\n")
