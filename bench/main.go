//go:build linux

// Bench measures the library beside its peers and beside the floor, in one run on one machine.
//
//	go run ./bench                      everything; about half an hour
//	go run ./bench --quick              to see it work
//	go run ./bench --only=respawn       some rows; --list names them
//
// It starts the contenders as programs of their own, by turns, and compares the medians. bench/setup.sh installs the peers;
// what is not installed is left out, and said so.
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
	Only       []string `help:"Measure these rows only."`
	List       bool     `help:"List the rows and their goals."`
	Quick      bool     `help:"Few rounds: shows that it works, and nothing to quote."`
	Fleet      int      `help:"How many workers the rows of 1,000 workers have; 0 means 1,000, or 50 in a quick run." placeholder:"N"`
	JSON       string   `help:"Write everything that was measured to this file." type:"path" placeholder:"FILE"`
	Plots      string   `help:"Draw a plot of each row into this directory." type:"path" placeholder:"DIR"`
	From       string   `help:"Measure nothing: take what --json has written." type:"existingfile" placeholder:"FILE"`
	UpdateDocs string   `help:"Put the table, the figures and the plots into the documents below this directory." type:"existingdir" placeholder:"DIR"`

	out io.Writer // the tables
	log io.Writer // what is going on
}

func main() {
	o := options{out: os.Stdout, log: os.Stderr}
	kong.Parse(&o, kong.Name("bench"), kong.Description("Measures the library beside its peers and beside the floor."))
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

// report measures, or reads what was measured before. What there is comes with an error, too.
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
		r.say = func(format string, args ...any) { fmt.Fprintf(o.log, "# "+row.name+": "+format+"\n", args...) }
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

// failed is the error of the rows that could not be measured.
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
	return fmt.Errorf("could not be measured: %s", strings.Join(names, ", "))
}

// choose finds the rows of --only; none means all.
func choose(only []string) (chosen []row, err error) {
	if len(only) == 0 {
		return rows, nil
	}
	for _, name := range only {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no row %q; --list names them", name)
		}
		chosen = append(chosen, rows[i])
	}
	return chosen, nil
}

// command is how this run would be typed, without what says where to write to.
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
