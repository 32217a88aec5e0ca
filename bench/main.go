//go:build linux

// Bench compares the library with its peers, and with the minimum that any
// program needs, in one run on one machine.
//
//	go run ./bench                  all rows, in about half an hour
//	go run ./bench --quick          a test run
//	go run ./bench --only=respawn   some rows; --list prints their names
//
// It runs each contender as a separate program, alternates between them, and
// compares the medians. The script bench/setup.sh installs the peers. Bench
// skips peers that are not installed and lists them.
//
// To compare two revisions of the library, use scripts/bench-compare.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// options are the flags.
type options struct {
	Only       []string `help:"Measure only these rows."`
	List       bool     `help:"List the rows and their goals."`
	Quick      bool     `help:"Run few rounds, to test bench itself."`
	Fleet      int      `help:"Number of workers in the rows with 1,000 workers; 0 means 1,000, or 50 with --quick." placeholder:"N"`
	JSON       string   `help:"Write the report with all samples to this file." type:"path" placeholder:"FILE"`
	Plots      string   `help:"Write a plot of each row to this directory." type:"path" placeholder:"DIR"`
	From       string   `help:"Read the report from a file of --json instead of measuring." type:"existingfile" placeholder:"FILE"`
	UpdateDocs string   `help:"Write the table, the figures and the plot to the documents in this directory." type:"existingdir" placeholder:"DIR"`
	Before     []string `help:"Compare reports of --json instead of measuring: those of the old revision." type:"existingfile" placeholder:"FILE"`
	After      []string `help:"The reports of the new revision, as many as in --before." type:"existingfile" placeholder:"FILE"`

	out io.Writer // tables
	log io.Writer // progress
}

func main() {
	o := options{out: os.Stdout, log: os.Stderr}
	kong.Parse(&o, kong.Name("bench"), kong.Description("Compares the library with its peers, and with the minimum that any program needs."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) error {
	if o.List {
		list(o.out)
		return nil
	}
	if len(o.Before) > 0 || len(o.After) > 0 {
		return compare(o.out, o.Before, o.After)
	}
	rep, err := o.report(ctx)
	if rep == nil {
		return err
	}
	rep.write(o.out)
	if o.JSON != "" {
		if err := rep.writeJSON(o.JSON); err != nil {
			return err
		}
	}
	if o.Plots != "" {
		if err := rep.draw(o.Plots); err != nil {
			return err
		}
	}
	if o.UpdateDocs != "" && err == nil {
		return rep.updateDocs(o.UpdateDocs)
	}
	return err
}

// report measures, or reads an earlier report. An incomplete report comes with
// an error.
func (o *options) report(ctx context.Context) (*report, error) {
	if o.From != "" {
		return readReport(o.From)
	}
	chosen, err := choose(o.Only)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "prefork-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cpus, err := place()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	rep := &report{Machine: thisMachine(), Began: began, Command: o.command(), Quick: o.Quick}
	fmt.Fprintf(o.log, "# %s\n", rep.Machine)
	b := &builds{dir: filepath.Join(dir, "programs")}
	l := newLauncher()
	defer l.close()
	for _, row := range chosen {
		r := &run{
			result: &result{Name: row.name, What: row.what, Beside: row.beside, Goal: row.goal},
			ctx:    ctx, quick: o.Quick, fleet: o.fleet(), dir: dir, cpus: cpus, builds: b, launcher: l,
		}
		r.logf = func(format string, args ...any) { fmt.Fprintf(o.log, "# "+row.name+": "+format+"\n", args...) }
		from := time.Now()
		if err := row.measure(r); err != nil {
			r.Failed = err.Error()
		}
		r.Seconds = time.Since(from).Seconds()
		r.summarize()
		r.result.write(o.out)
		rep.Rows = append(rep.Rows, r.result)
		if ctx.Err() != nil {
			break
		}
	}
	rep.Seconds = time.Since(began).Seconds()
	return rep, rep.failed()
}

func (o *options) fleet() int {
	switch {
	case o.Fleet > 0:
		return o.Fleet
	case o.Quick:
		return 50
	}
	return 1000
}

// failed returns an error that lists the rows that failed, or nil.
func (r *report) failed() error {
	var names []string
	for _, row := range r.Rows {
		if row.Failed != "" {
			names = append(names, row.Name)
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("rows failed: %s", strings.Join(names, ", "))
}

// choose returns the rows with the names in only; none means all.
func choose(only []string) (chosen []row, err error) {
	if len(only) == 0 {
		return rows, nil
	}
	for _, name := range only {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no row %q: see --list", name)
		}
		chosen = append(chosen, rows[i])
	}
	return chosen, nil
}

// command returns the command line of this run, without the flags for its
// output.
func (o *options) command() string {
	line := "go run ./bench"
	if len(o.Only) > 0 {
		line += " --only=" + strings.Join(o.Only, ",")
	}
	if o.Quick {
		line += " --quick"
	}
	if o.Fleet > 0 {
		line += fmt.Sprint(" --fleet=", o.Fleet)
	}
	return line
}
