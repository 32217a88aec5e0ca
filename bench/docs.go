package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// updateDocs writes the report into the documents in dir and the README.md
// above it. It replaces the text between the marks "<!-- bench:NAME -->" and
// "<!-- bench -->".
func (r *report) updateDocs(dir string) error {
	if r.Quick {
		return fmt.Errorf("documents in %s not updated: a quick run has too few rounds; run without --quick", dir)
	}
	sections := map[string]string{"machine": r.markdownMachine(), "table": r.markdownTable(), "series": r.markdownSeries(), "leftout": r.markdownLeftOut(), "readme": r.markdownReadme()}
	for _, row := range r.Rows {
		sections["row "+row.Name] = row.markdownFigures()
	}
	for name, section := range sections {
		if section == "" { // not measured in this run
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

// replaceSections replaces the text between marks. It leaves sections unchanged
// that are not in the report.
func replaceSections(text string, sections map[string]string) (string, error) {
	var out strings.Builder
	for {
		before, tail, found := strings.Cut(text, "<!-- bench:")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, tail, ok := strings.Cut(tail, " -->")
		old, after, closed := strings.Cut(tail, markEnd)
		if !ok || !closed {
			return "", fmt.Errorf("section %q has no end: add %s", name, markEnd)
		}
		if section, known := sections[name]; known {
			old = "\n" + strings.TrimSpace(section) + "\n"
		}
		fmt.Fprintf(&out, "<!-- bench:%s -->%s%s", name, old, markEnd)
		text = after
	}
}

func (r *report) markdownMachine() string {
	return fmt.Sprintf("Measured on %s with `%s`, in %.0f minutes, on %s.", r.Began.Format("2006-01-02"), r.Command, r.Seconds/60, r.Machine)
}

// markdownTable returns a table of the figures with a goal.
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
			fmt.Fprintf(&out, "| %s | failed | | | |\n", name)
		}
	}
	return out.String()
}

// markdownFigures returns all figures of a row as a list.
func (r *result) markdownFigures() string {
	var out strings.Builder
	for _, f := range r.Figures {
		fmt.Fprintf(&out, "- %s: %s\n", f.Name, f.value())
	}
	return out.String()
}

// markdownSeries returns a table of the contenders of each row, with their
// settings.
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
		return "All contenders were measured."
	}
	return "Not measured:\n\n" + out.String()
}
