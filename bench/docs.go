package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// updateDocs puts the report into the documents: what stands between the marks "<!-- bench:NAME -->" and
// "<!-- bench -->" is replaced, and nothing else. dir is the directory of the documents, with README.md above it.
func (r *report) updateDocs(dir string) error {
	if r.Quick {
		return fmt.Errorf("a quick run is nothing to quote; the documents in %s are as they were", dir)
	}
	sections := map[string]string{"machine": r.markdownMachine(), "table": r.markdownTable(), "series": r.markdownSeries(), "leftout": r.markdownLeftOut(), "readme": r.markdownReadme()}
	for _, row := range r.Rows {
		sections["row "+row.Name] = row.markdownFigures()
	}
	for name, section := range sections {
		if section == "" { // nothing of it was measured: what stands there stays
			delete(sections, name)
		}
	}
	for _, file := range []string{filepath.Join(dir, "PERFORMANCE.md"), filepath.Join(dir, "..", "README.md")} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		changed, err := replaceSections(string(text), sections)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			return err
		}
	}
	for _, row := range r.Rows {
		if row.Name == "standby" {
			return row.plot(inSeconds, filepath.Join(dir, "performance.svg"))
		}
	}
	return nil
}

const markEnd = "<!-- bench -->"

// replaceSections replaces what stands between marks. A section that the report knows nothing of stays as it is.
func replaceSections(text string, sections map[string]string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "<!-- bench:")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, rest, ok := strings.Cut(rest, " -->")
		old, after, closed := strings.Cut(rest, markEnd)
		if !ok || !closed {
			return "", fmt.Errorf("the section %q has no end, %s", name, markEnd)
		}
		if section, known := sections[name]; known {
			old = "\n" + strings.TrimSpace(section) + "\n"
		}
		fmt.Fprintf(&out, "<!-- bench:%s -->%s%s", name, old, markEnd)
		text = after
	}
}

func (r *report) markdownMachine() string {
	return fmt.Sprintf("Measured on %s by `%s`, in %.0f minutes, on %s.", r.Began.Format("2006-01-02"), r.Command, r.Seconds/60, r.Machine)
}

// markdownTable has one line for each figure with a goal.
func (r *report) markdownTable() string {
	var out strings.Builder
	out.WriteString("| row | figure | measured | goal | |\n|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		name := row.Name
		for _, f := range row.Figures {
			if f.Goal == nil {
				continue
			}
			verdict := strings.Replace(f.verdict(), "NOT REACHED", "**not reached**", 1)
			fmt.Fprintf(&out, "| %s | %s | %s | %s | %s |\n", name, f.Name, f.value(), f.Goal.format(f.Unit), verdict)
			name = ""
		}
		if row.Failed != "" {
			fmt.Fprintf(&out, "| %s | could not be measured | | | |\n", name)
		}
	}
	return out.String()
}

// markdownFigures are all figures of a row, in a sentence each.
func (r *result) markdownFigures() string {
	var out strings.Builder
	for _, f := range r.Figures {
		fmt.Fprintf(&out, "- %s: %s\n", f.Name, f.value())
	}
	return out.String()
}

// markdownSeries is every contender with its settings.
func (r *report) markdownSeries() string {
	var out strings.Builder
	for _, row := range r.Rows {
		if len(row.Series) == 0 {
			continue
		}
		fmt.Fprintf(&out, "**%s**: %s. %s.\n\n| | median | middle half | n | settings |\n|---|---|---|---|---|\n", row.Name, row.What, row.Bounds)
		for _, s := range row.Series {
			if s.Spread.N > 0 {
				fmt.Fprintf(&out, "| %s | %s | %s – %s | %d | %s |\n", s.title(), s.Unit.format(s.Spread.Median),
					s.Unit.format(s.Spread.Q1), s.Unit.format(s.Spread.Q3), s.Spread.N, s.Settings)
			}
		}
		for _, n := range row.Notes {
			fmt.Fprintf(&out, "\n%s\n", n)
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (r *report) markdownLeftOut() string {
	var out strings.Builder
	for _, row := range r.Rows {
		for _, l := range row.LeftOut {
			fmt.Fprintf(&out, "- %s: %s: %s\n", row.Name, l.Name, l.Why)
		}
	}
	if out.Len() == 0 {
		return "Nothing was left out."
	}
	return "Left out:\n\n" + out.String()
}
