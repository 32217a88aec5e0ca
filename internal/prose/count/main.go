// Command count prints how often comments and documents use the words that
// STYLE.md limits, by directory:
//
//	go run ./internal/prose/count [-check] [-list CLASS] [PATH...]
//
// A path is a Go file, a Markdown file, or a directory, which is read
// recursively. The default is the current directory. The package prose documents
// the classes.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/prefork-go/prefork/internal/prose"
)

func main() {
	check := flag.Bool("check", false, "list each failure and exit 1 if a limit is exceeded")
	list := flag.String("list", "", "print each hit of a `class` as file:line instead of the table; \"all\" for every class")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: count [-check] [-list CLASS] [PATH...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	passed, err := run(os.Stdout, flag.Args(), *check, *list)
	if err != nil {
		fmt.Fprintln(os.Stderr, "count:", err)
		os.Exit(2)
	}
	if *check && !passed {
		os.Exit(1)
	}
}

// run reports whether the text of all paths is within the limits.
func run(out io.Writer, paths []string, check bool, list string) (passed bool, err error) {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	for i, path := range paths {
		paths[i] = filepath.Clean(strings.TrimSuffix(path, "..."))
	}
	if list != "" && list != "all" && !slices.Contains(classes(), list) {
		return false, fmt.Errorf("no class %q: use one of %s", list, strings.Join(classes(), ", "))
	}
	files, err := prose.Files(paths...)
	if err != nil {
		return false, err
	}
	directories, total, err := countAll(files)
	if err != nil {
		return false, err
	}
	if list != "" {
		for _, hit := range total.Hits {
			if list == "all" || hit.Class == list {
				fmt.Fprintln(out, hit)
			}
		}
		return true, nil
	}
	table(out, directories, total)
	return verdict(out, total, check), nil
}

func countAll(files []string) (directories map[string]*prose.Count, total prose.Count, err error) {
	directories = map[string]*prose.Count{}
	for _, file := range files {
		count, err := prose.File(file)
		if err != nil {
			return nil, total, err
		}
		dir := filepath.Dir(file)
		if directories[dir] == nil {
			directories[dir] = &prose.Count{}
		}
		directories[dir].Add(count)
		total.Add(count)
	}
	return directories, total, nil
}

func classes() []string {
	var all []string
	for _, limit := range prose.Limits {
		all = append(all, limit.Class)
	}
	return append(all, prose.Absolute...)
}

// table prints hits and, in parentheses, hits per 10,000 words. An exclamation
// mark stands beside a rate that is over its limit.
func table(out io.Writer, directories map[string]*prose.Count, total prose.Count) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "words\t")
	for _, class := range classes() {
		fmt.Fprint(w, class, "\t")
	}
	fmt.Fprintln(w, "")
	row := func(name string, count prose.Count, isTotal bool) {
		fmt.Fprintf(w, "%d\t", count.Words)
		for _, limit := range prose.Limits {
			mark := ""
			if !limit.Met(count) && (isTotal || !limit.Lower) {
				mark = "!"
			}
			fmt.Fprintf(w, "%d (%.0f)%s\t", count.Of(limit.Class), count.Rate(limit.Class), mark)
		}
		for _, class := range prose.Absolute {
			fmt.Fprintf(w, "%d\t", count.Of(class))
		}
		fmt.Fprintln(w, " "+name)
	}
	var names []string
	for name := range directories {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		row(name, *directories[name], false)
	}
	row("total", total, true)
	fmt.Fprint(w, "\t")
	for _, limit := range prose.Limits {
		fmt.Fprint(w, limit, "\t")
	}
	for range prose.Absolute {
		fmt.Fprint(w, "0\t")
	}
	fmt.Fprintln(w, " limit")
	w.Flush()
}

// verdict reports whether total is within the limits. If list is set, it prints
// each failure: files with most hits first, and each hit of an absolute class.
func verdict(out io.Writer, total prose.Count, list bool) bool {
	passed := true
	for _, limit := range prose.Limits {
		if limit.Met(total) {
			continue
		}
		passed = false
		if !list {
			continue
		}
		fmt.Fprintf(out, "\n%s: %.1f per 10,000 words, limit %s\n", limit.Class, total.Rate(limit.Class), limit)
		if !limit.Lower {
			worst(out, total, limit.Class)
		}
	}
	for _, class := range prose.Absolute {
		if total.Of(class) == 0 {
			continue
		}
		passed = false
		if list {
			each(out, total, class)
		}
	}
	return passed
}

func each(out io.Writer, total prose.Count, class string) {
	for _, hit := range total.Hits {
		if hit.Class == class {
			fmt.Fprintln(out, hit)
		}
	}
}

func worst(out io.Writer, total prose.Count, class string) {
	files := map[string]int{}
	for _, hit := range total.Hits {
		if hit.Class == class {
			files[hit.File]++
		}
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(files[b], files[a]), cmp.Compare(a, b))
	})
	for _, name := range names {
		fmt.Fprintf(out, "%6d  %s\n", files[name], name)
	}
}
