//go:build unix

package manager_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/preforktest"
)

// The tables of docs/SIGNALS.md that are marked "checked" are compared with the
// code. Each test works out the text of a cell in the page's words; the two
// must be equal.

const signalsPage = "../../docs/SIGNALS.md"

func TestSignalsPage(t *testing.T) {
	for mark, check := range map[string]func(t *testing.T, row, columns []string){
		"stop signal": checkStopSignal, "interrupt": checkInterrupt,
		"manager": checkManager, "worker": checkWorker, "effect": checkEffect,
	} {
		t.Run(mark, func(t *testing.T) {
			columns, rows := pageTable(t, mark)
			for _, row := range rows {
				t.Run(row[0]+" "+row[1], func(t *testing.T) { check(t, row, columns) })
			}
		})
	}
	t.Run("untrappable", func(t *testing.T) {
		page := make(map[syscall.Signal]string)
		_, rows := pageTable(t, "untrappable")
		for _, row := range rows {
			page[called(t, row[0]).(syscall.Signal)] = row[1]
		}
		// check returns the error of New for a table. If the table is valid,
		// New refuses the Command.
		check := func(table prefork.Signals) string {
			_, err := prefork.New(prefork.Config{TrapSignals: table, Command: []string{""}})
			return fmt.Sprint(err)
		}
		for sig := syscall.Signal(1); sig < 32; sig++ {
			err := check(prefork.Signals{sig: {}})
			if _, why, _ := strings.Cut(err, "cannot be trapped: "); page[sig] != why {
				t.Errorf("%v: the page has %q, New %s", sig, page[sig], err)
			}
			if err := check(prefork.Signals{usr1: {Signal: sig}}); !strings.Contains(err, "Config.Command") {
				t.Errorf("%v cannot be sent: %s", sig, err)
			}
		}
	})
	t.Run("defaults", func(t *testing.T) {
		_, rows := pageTable(t, "defaults")
		code := defaults(t)
		for _, row := range rows {
			comparePage(t, row[0], row[1], code[row[0]])
			delete(code, row[0])
		}
		if len(code) > 0 {
			t.Errorf("not on the page: %q", code)
		}
	})
}

// defaults returns the behaviour of a Manager with the zero Config, in the words
// of the page.
func defaults(t *testing.T) (code map[string]string) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{}, nil, ignoreSignals)
		table := prefork.Signals{}
		done := r.startLoop()
		time.Sleep(time.Minute)
		for _, sig := range r.traps {
			if sig == syscall.SIGINT { // it counts as the shutdown signal
				continue
			}
			before := len(signalsOf(r.process(1)))
			r.Deliver(sig)
			synctest.Wait()
			table[sig] = prefork.Forward{Signal: signalsOf(r.process(1))[before]}
		}
		<-done
		e := r.exits[0]
		code = map[string]string{
			"TrapSignals": formatSignals(table), "ShutdownSignal": short(r.SignalReceived()),
			"StopTimeout": (e.Uptime - time.Minute).String(), "OrphanTimeout": markerOf(t, r.process(1)).Orphan.String(),
		}
	})
	return code
}

// pageConfig returns the Config of a row that begins with a table and a
// ShutdownSignal.
func pageConfig(t *testing.T, row []string) prefork.Config {
	t.Helper()
	return prefork.Config{TrapSignals: parseSignals(t, row[0]), ShutdownSignal: called(t, row[1])}
}

// checkStopSignal reads the stop signal off a surplus worker, and delivers each
// signal of the table to Run.
func checkStopSignal(t *testing.T, row, columns []string) {
	synctest.Test(t, func(t *testing.T) {
		cfg := pageConfig(t, row)
		cfg.MaxWorkers = 1
		r := newRig(t, cfg, nil, func(p *proctest.Process, sig syscall.Signal) { p.Exit(proc.Status{}) })
		ctx, cancel := context.WithCancel(t.Context())
		done := r.startRun(ctx)
		time.Sleep(time.Minute)
		r.SetMaxWorkers(0)
		synctest.Wait()
		comparePage(t, columns[2], row[2], short(r.process(1).Signals()[0]))
		shutdown := cfg.ShutdownSignal
		if shutdown == nil {
			shutdown = term
		}
		var replace []string
		for sig := range cfg.TrapSignals {
			before := r.Generation()
			if sig != shutdown {
				r.Deliver(sig)
			}
			synctest.Wait()
			if r.Generation() > before {
				replace = append(replace, short(sig))
			}
		}
		slices.Sort(replace)
		if replace == nil {
			replace = []string{"none"}
		}
		comparePage(t, columns[3], row[3], strings.Join(replace, ", "))
		cancel()
		<-done
	})
}

// checkInterrupt runs a program that interrupts itself in Start, and in Run.
func checkInterrupt(t *testing.T, row, columns []string) {
	if signal.Ignored(os.Interrupt) {
		preforktest.Skipf(t, "interrupts are ignored here (nohup?), and so they would be in the programs of this test")
	}
	for i, call := range []string{"Start", "Run"} {
		p := preforktest.Start(t, "interruptItself", row[0], row[1], call)
		code := p.Expect(`^it (.*)$|^(begin)$`)[1]
		if code == "" { // it interrupts itself next
			p.Wait()
			p.WaitGone()
			code = "is not trapped"
			for _, line := range p.Lines() {
				if text, ok := strings.CutPrefix(line, "it "); ok {
					code = text
				}
			}
		}
		if status := p.Wait().Sys().(syscall.WaitStatus); (code == "is not trapped") != (status.Signaled() && status.Signal() == syscall.SIGINT) {
			t.Errorf("%s: %q, and the process ended with %v", call, code, p.Wait())
		}
		comparePage(t, columns[2+i], row[2+i], code)
	}
}
