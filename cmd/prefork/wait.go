package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/ops/client"
)

// The states of the verb wait. The manager knows the first ones.
var waitStates = []string{"ready", "settled", "paused", "running", "stopped", "gone"}

func isReloaded(state string) bool {
	generation, ok := strings.CutPrefix(state, "reloaded>")
	return ok && isNumber(generation)
}

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "wait STATE", Aliases: []string{"check"}, GroupID: groupShow, ValidArgs: waitStates,
		Short: "Wait until it is ready, settled, paused, running, stopped or gone",
		Long: `Waits until the state holds, at most --timeout:

  ready       each pool has a worker that is ready, and each service of
              prefork watch is, except those that are meant to be down
  settled     all workers are, of the generation that goes on, and nothing is under way
  paused      all workers have paused
  running     a generation has begun, and no shutdown
  reloaded>N  settled, with a generation after N
  stopped     the last worker is gone
  gone        the manager is gone

It also waits for a manager that does not run yet, unless it should be stopped or gone.
"check" alone is for the state ready.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.CalledAs() == "check" && len(args) == 0 {
				return nil
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			state := "ready"
			if len(args) > 0 {
				state = args[0]
			}
			return a.wait(state)
		},
	}
}

func (a *app) wait(state string) error {
	if !slices.Contains(waitStates, state) && !isReloaded(state) {
		return usagef("wait %s: the states are %s and reloaded>N", state, strings.Join(waitStates, ", "))
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
	defer cancel()
	began := time.Now()
	var err error
	switch state {
	case "stopped":
		err = a.waitStopped(ctx)
	case "gone":
		err = a.waitGone(ctx)
	default:
		err = a.waitState(ctx, state)
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	if a.json {
		a.printJSON(struct {
			Manager string  `json:"manager"`
			State   string  `json:"state"`
			Seconds float64 `json:"seconds"`
		}{a.name, state, took.Seconds()})
	}
	if a.name == "" {
		a.name = "prefork"
	}
	a.printDone("%s", state)
	return nil
}

// late returns the error of a state that does not hold in time.
func (a *app) late(state string) error {
	return &exitError{code: exitPending, text: fmt.Sprintf("%snot %s within %v%s; %s runs", a.prefix(), state, a.timeout, a.lagging(state), a.manager())}
}

// lagging names the pools, of several, whose state does not hold.
func (a *app) lagging(state string) string {
	if state != "ready" && state != "settled" || a.pool != "" {
		return ""
	}
	c, err := client.Dial(a.socket)
	if err != nil {
		return ""
	}
	defer c.Close()
	ctx, cancel := query()
	defer cancel()
	s, err := c.Status(ctx, client.StatusOptions{})
	if err != nil {
		return ""
	}
	services := servicesOf(ctx, c)
	if len(s.Pools) < 2 && len(services) == 0 {
		return ""
	}
	const most = 10
	var names []string
	for _, p := range s.Pools {
		if one := services[p.Name]; state == "ready" && !p.Ready && one == nil || state == "settled" && !p.Settled {
			names = append(names, oneLine(p.Name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) { // also of those that have no pool
		if one := services[name]; state == "ready" && !one.Ready && !one.MeantDown() {
			names = append(names, oneLine(name))
		}
	}
	if n := len(names) - most; n > 1 {
		names = append(names[:most], fmt.Sprintf("and %d more", n))
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

// servicesOf returns the services and loggers of the program by name; none if it keeps
// none.
func servicesOf(ctx context.Context, c *client.Client) map[string]*client.Service {
	all, err := c.Services(ctx)
	if err != nil {
		return nil
	}
	byName := make(map[string]*client.Service)
	for i := range all.Services {
		one := &all.Services[i]
		byName[one.Name] = one
		if one.Log != nil {
			byName[one.Name+"/log"] = one.Log
		}
	}
	return byName
}

// isEnding reports whether an error means that the manager has ended, or that it ends
// and carries out no command any more.
func isEnding(err error) bool {
	var refused *client.RefusedError
	return errors.Is(err, client.ErrNotRunning) || errors.Is(err, client.ErrLost) || errors.As(err, &refused) && refused.Problem.Error == client.Ending
}

// isGone reports whether an error means that the manager has ended, or is ending.
func isGone(err error) bool {
	var refused *client.RefusedError
	return errors.Is(err, client.ErrNotRunning) || errors.Is(err, client.ErrLost) || errors.As(err, &refused) && refused.Code == 503
}

// waitState waits for a state that a manager knows, and before that for a manager.
func (a *app) waitState(ctx context.Context, state string) error {
	if a.chosen() != "" {
		a.name = nameOf(a.chosen())
	}
	sockets := a.newSocketWatch()
	defer sockets.close()
	for {
		holds, err := a.askFor(ctx, state)
		switch {
		case holds:
			return nil
		case err == nil:
			return a.late(state)
		case !isGone(err):
			return a.failure(err)
		case !errors.Is(err, client.ErrNotRunning): // it is ending, and still listens
			select {
			case <-ctx.Done():
			case <-time.After(endDelay):
			}
		}
		if sockets.wait(ctx) != nil {
			return &exitError{code: exitNotRunning, text: fmt.Sprintf("%s%s; waited for %v", a.prefix(), a.whyNotRunning(), a.timeout)}
		}
	}
}

// askFor has the manager wait for a state, until ctx's deadline.
func (a *app) askFor(ctx context.Context, state string) (holds bool, err error) {
	c, err := client.Dial(a.socket)
	if err != nil {
		return false, err
	}
	defer c.Close()
	a.name, a.peer = nameOf(c.Socket()), c.Peer()
	deadline, _ := ctx.Deadline()
	holds, err = c.Wait(context.Background(), state, a.pool, max(time.Until(deadline), time.Millisecond))
	a.peer = c.Peer()
	return holds, err
}

// waitStopped waits until the last worker is gone. Without a manager that holds.
func (a *app) waitStopped(ctx context.Context) error {
	for {
		c, err := a.dialOrGone()
		if c == nil || err != nil {
			return err
		}
		st, err := a.status(c, false)
		if err != nil {
			if e, ok := err.(*exitError); ok && e.code == exitNotRunning {
				return nil
			}
			return err
		}
		left := running(st)
		if len(left) == 0 {
			return nil
		}
		stopped, err := a.untilStopped(ctx, c, left)
		switch {
		case stopped:
			return nil
		case isOver(ctx):
			return a.late("stopped")
		case err != nil && !isGone(err):
			return a.failure(err)
		}
	}
}

// running returns the names of the pools whose last worker is not gone.
func running(st *client.Status) map[string]bool {
	left := make(map[string]bool)
	for _, p := range st.Pools {
		if p.Stopping == nil || len(p.Workers) > 0 {
			left[p.Name] = true
		}
	}
	return left
}

// isOver reports whether the time of a context is over. The connection may see it
// a moment before the context does.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(deadline) < 10*time.Millisecond
}

// untilStopped follows the events until the last pool in left has ended. It also
// returns if the connection ends, or if a successor has taken over.
func (a *app) untilStopped(ctx context.Context, c *client.Client, left map[string]bool) (stopped bool, err error) {
	for e, err := range c.Events(ctx, client.EventsOptions{Pool: a.pool}) {
		if err != nil {
			return false, err
		}
		switch e.Type {
		case client.TypeState: // of a moment after the status
			var st client.Status
			if json.Unmarshal(e.Data, &st) == nil && len(st.Pools) > 0 {
				left = running(&st)
			}
		case "manager-ended":
			delete(left, e.Pool)
		case "manager-started":
			left[e.Pool] = true
		case client.TypeLost, client.TypeEnd:
			return false, nil
		}
		if len(left) == 0 {
			return true, nil
		}
	}
	return false, waitExit(ctx, c.Socket()) // killed
}

// dialOrGone connects to the manager; nil if there is none.
func (a *app) dialOrGone() (*client.Client, error) {
	c, err := a.dial()
	if e, ok := err.(*exitError); ok && e.code == exitNotRunning {
		return nil, nil
	}
	return c, err
}

// waitGone waits until no process serves the socket any more.
func (a *app) waitGone(ctx context.Context) error {
	for {
		c, err := a.dialOrGone()
		if c == nil || err != nil {
			return err
		}
		c.Close()
		if err := waitExit(ctx, c.Socket()); ctx.Err() != nil {
			return a.late("gone")
		} else if err != nil {
			return &exitError{code: exitFailed, text: fmt.Sprintf("%scannot wait for %s: %v", a.prefix(), a.manager(), err)}
		}
	}
}

// hasEnded reports whether a manager whose connection has ended exits, for which it
// waits.
func (a *app) hasEnded(peer client.Peer) bool {
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
	defer cancel()
	for {
		c, err := client.Dial(a.socket)
		if err != nil {
			return errors.Is(err, client.ErrNotRunning)
		}
		c.Close()
		if c.Peer().PID != peer.PID || waitExit(ctx, c.Socket()) != nil {
			return false
		}
	}
}

// waitExit waits until the process that listens on a socket has exited. If the
// system does not report that, or if another process has the socket still, it
// waits for abstractInterval.
func waitExit(ctx context.Context, socket string) error {
	p, err := openPeer(socket)
	switch {
	case err == nil:
		defer p.close()
		return p.wait(ctx)
	case isRefused(err):
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(abstractInterval):
		return nil
	}
}

// isRefused reports whether an error means that no process listens on a socket.
func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// lastSeen describes when the manager of the socket last gave a sign of life, by
// its journal or the pid file of its service.
func (a *app) lastSeen() string {
	name := nameOf(a.chosen())
	for _, dir := range a.serviceDirs() {
		if at, ended := lastRecord(filepath.Join(dir, name+".journal")); !at.IsZero() {
			what := "the last record of its journal is from "
			if ended {
				what = "by its journal it ended at "
			}
			return fmt.Sprintf("%s%s (%s ago)", what, at.Local().Format(time.DateTime), client.Age(time.Since(at)))
		}
	}
	return ""
}

// serviceDirs returns the directories in which the files of a service may be.
func (a *app) serviceDirs() []string {
	chosen := a.chosen()
	var dirs []string
	if isAddress(chosen) && !strings.HasPrefix(chosen, "@") {
		dirs = append(dirs, filepath.Dir(chosen))
	}
	name := nameOf(chosen)
	dirs = append(dirs, socketDirs(name)...)
	dirs = append(dirs, "/var/log/"+name, "/var/lib/"+name, "/run", os.Getenv("XDG_RUNTIME_DIR"))
	return slices.DeleteFunc(dirs, func(dir string) bool { return !filepath.IsAbs(dir) })
}
