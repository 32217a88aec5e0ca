// Package top shows the workers of a manager live, and acts on them by keys.
// Without a terminal it prints a block of lines each interval.
package top

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"

	"github.com/prefork-go/prefork/ops/client"
)

// Config holds the options of Run.
type Config struct {
	Client   *client.Client
	Pool     string // "" means all
	Interval time.Duration
	Once     bool // print one block, and return
	Out      io.Writer
}

// Run shows the manager until the user quits. It restores the terminal in any
// case. It returns an error of the manager only if Once is set or Out is no
// terminal.
func Run(cfg Config) error {
	f, ok := cfg.Out.(*os.File)
	if cfg.Once || !ok || !term.IsTerminal(f.Fd()) || !term.IsTerminal(os.Stdin.Fd()) {
		return plain(context.Background(), cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := newModel(cfg)
	p := tea.NewProgram(m, tea.WithOutput(f), tea.WithFPS(10))
	m.feed = newFeed(cfg, func(msg any) { p.Send(msg) })
	m.send = func(msg any) { p.Send(msg) }

	// Bubbletea quits at SIGTERM and SIGINT. These would end the process without
	// restoring the terminal.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	go func() {
		select {
		case <-signals:
			p.Quit()
		case <-ctx.Done():
		}
	}()
	go guard(p, func() { m.feed.run(ctx) })
	go guard(p, func() { m.feed.follow(ctx) })
	_, err := p.Run()
	if errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// guard ends the program, so that the terminal is restored, if f panics.
func guard(p *tea.Program, f func()) {
	defer func() {
		if v := recover(); v != nil {
			p.Kill()
			p.Wait()
			panic(v)
		}
	}()
	f()
}

// plain prints a block of lines each interval.
func plain(ctx context.Context, cfg Config) error {
	f := newFeed(cfg, nil)
	var r rates
	tick := time.NewTicker(cfg.Interval)
	defer tick.Stop()
	for n := 0; ; n++ {
		look := f.look(ctx)
		if look.err != nil {
			return look.err
		}
		r.add(look.at, look.status, cfg.Interval)
		if n > 0 || !cfg.Once { // rates need two looks
			if err := writeBlock(cfg.Out, look.status, &r); err != nil {
				return nil // the reader is gone
			}
		}
		if n > 0 && cfg.Once {
			return nil
		}
		<-tick.C
	}
}

func writeBlock(out io.Writer, s *client.Status, r *rates) error {
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, join(s.Now.Local().Format(time.DateTime), title(s)))
	for i := range s.Pools {
		p := &s.Pools[i]
		for _, line := range head(p, s.Now, r, label(s, p), 4, 0) {
			fmt.Fprintln(w, line.text)
		}
		for _, line := range table(rowsOf(p, s.Now, r), 0, false) {
			fmt.Fprintln(w, line)
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// label begins the lines of a pool of a program that has several.
func label(s *client.Status, p *client.Pool) string {
	if len(s.Pools) < 2 {
		return ""
	}
	return fmt.Sprintf("pool %q: ", p.Name)
}
