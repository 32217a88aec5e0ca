package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/cmd/prefork/internal/top"
	"github.com/prefork-go/prefork/ops/client"
)

// dial connects to the manager that the user has chosen.
func (a *app) dial() (*client.Client, error) {
	chosen := a.chosen()
	if chosen != "" {
		a.name = nameOf(chosen)
	}
	c, err := client.Dial(a.socket)
	if err != nil {
		return nil, a.failure(err)
	}
	a.name, a.peer = nameOf(c.Socket()), c.Peer()
	return c, nil
}

// query returns a context for a query.
func query() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), queryTimeout)
}

// status asks for the status. A manager that cannot answer shows here.
func (a *app) status(c *client.Client, usage bool) (*client.Status, error) {
	ctx, cancel := query()
	defer cancel()
	s, err := c.Status(ctx, client.StatusOptions{Pool: a.pool, Usage: usage})
	a.peer = c.Peer()
	if err != nil {
		return nil, a.failure(err)
	}
	a.rename(s)
	return s, nil
}

// rename names the manager as it names itself, unless the name is in the address
// of its socket, by which -s finds it.
func (a *app) rename(s *client.Status) {
	if chosen := a.chosen(); isAddress(chosen) && !strings.HasSuffix(chosen, client.Suffix) && !strings.HasPrefix(chosen, client.Prefix) {
		a.name = s.Name
	}
}

func (a *app) addQueries(root *cobra.Command) {
	root.AddCommand(&cobra.Command{
		Use: "ls", GroupID: groupShow, Args: cobra.NoArgs,
		Short: "List the managers that run",
		RunE:  func(*cobra.Command, []string) error { return a.list() },
	})

	var check bool
	status := &cobra.Command{
		Use: "status", GroupID: groupShow, Args: cobra.NoArgs,
		Short: "Show the workers",
		Long: `Shows each pool, and a line for each worker and each slot that waits for one:

  ID        the number that restart, stop, kill and signal take; it is never used again
  GEN       the generation, which each reload counts up
  STATE     starting, ready, stopping, killed or standby, with the time left
  ST        the status that the worker reports (Worker.SetStatus): "." none, "_" idle
  REQUESTS  as the worker counts them (Worker.Served)
  MEMORY    of the worker alone, without shared memory`,
		RunE: func(*cobra.Command, []string) error { return a.showStatus(check) },
	}
	status.Flags().BoolVar(&check, "check", false, "exit 1 unless all workers are ready and nothing is under way")
	root.AddCommand(status)

	var interval time.Duration
	var once bool
	topCommand := &cobra.Command{
		Use: "top", Aliases: []string{"monit"}, GroupID: groupShow, Args: cobra.NoArgs,
		Short: "Show the workers live, and act on them by keys",
		Long:  "Shows the workers live, and acts on them by keys: ? lists them.\nIf the output is no terminal, it is one block of lines each interval.",
		RunE:  func(*cobra.Command, []string) error { return a.top(interval, once) },
	}
	topCommand.Flags().DurationVar(&interval, "interval", time.Second, "the time between two looks, at least 100ms")
	topCommand.Flags().BoolVar(&once, "once", false, "print one block and exit")
	root.AddCommand(topCommand)

	var opt eventsOptions
	events := &cobra.Command{
		Use: "events", GroupID: groupShow, Args: cobra.NoArgs,
		Short: "Print the last events, and those that follow",
		RunE:  func(*cobra.Command, []string) error { return a.events(opt) },
	}
	events.Flags().BoolVarP(&opt.follow, "follow", "f", false, "print the events that follow as well")
	events.Flags().IntVarP(&opt.last, "lines", "n", 20, "the number of past events")
	events.Flags().StringSliceVar(&opt.types, "type", nil, "only events of these types, such as exit,worker")
	events.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(eventTypes, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(events)

	var slot, lines int
	tail := &cobra.Command{
		Use: "tail", GroupID: groupShow, Args: cobra.NoArgs,
		Short: "Print the last lines of the workers",
		Long: "Prints the last lines that the workers of a pool have written, of those that the manager keeps:\n" +
			"100 lines or 64 KiB of each slot. The programs of prefork run and prefork watch have them.",
		RunE: func(*cobra.Command, []string) error { return a.tail(slot, lines) },
	}
	tail.Flags().IntVar(&slot, "slot", -1, "only those of the workers in this slot")
	tail.Flags().IntVarP(&lines, "lines", "n", 20, "the number of lines")
	root.AddCommand(tail)

	root.AddCommand(&cobra.Command{
		Use: "ping", GroupID: groupShow, Args: cobra.NoArgs,
		Short: "Check that the manager's loop turns",
		RunE:  func(*cobra.Command, []string) error { return a.ping() },
	})
}

func (a *app) tail(slot, lines int) error {
	if lines < 0 {
		return usagef("-n %d: it must not be negative", lines)
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	ctx, cancel := query()
	defer cancel()
	t, err := c.Tail(ctx, client.TailOptions{Pool: a.pool, OneSlot: slot >= 0, Slot: slot, Lines: lines})
	a.peer = c.Peer()
	if err != nil {
		return a.failure(err)
	}
	t.Lines = t.Lines[max(0, len(t.Lines)-lines):]
	if a.json {
		a.printJSON(t)
		return nil
	}
	for _, l := range t.Lines {
		fmt.Fprintf(a.out, "%s  %d/%d  %s\n", l.Time.Local().Format("2006-01-02 15:04:05.000"), l.Slot, l.PID, oneLine(l.Text()))
	}
	if len(t.Lines) == 0 && lines > 0 {
		a.note("%s", noLines(ctx, c, t.Pool))
	}
	return nil
}

// noLines explains why there are none.
func noLines(ctx context.Context, c *client.Client, pool string) string {
	if all, err := c.Services(ctx, pool); err == nil && all.Services[0].Log != nil {
		return fmt.Sprintf("no lines: the logger of %s has them, see %s", pool, filepath.Join(all.Services[0].Path, "log"))
	}
	return "no lines yet"
}

// A listed is a manager in the list.
type listed struct {
	Name    string     `json:"name"`
	Socket  string     `json:"socket"`
	PID     int        `json:"pid"`
	User    string     `json:"user"`
	State   string     `json:"state"`
	Workers string     `json:"workers"`
	Started *time.Time `json:"started,omitempty"`
	Error   string     `json:"error,omitempty"`
}

func (a *app) list() error {
	found, err := client.Find()
	if err != nil {
		return &exitError{code: exitFailed, text: err.Error()}
	}
	all := make([]listed, len(found))
	var wg sync.WaitGroup
	for i, f := range found {
		wg.Go(func() { all[i] = describe(f) })
	}
	wg.Wait()
	if a.json {
		a.printJSON(struct {
			Managers []listed `json:"managers"`
		}{all})
	}
	if len(all) == 0 {
		return &exitError{code: exitNotRunning, text: client.ErrNotRunning.Error() + ", or none with a control socket (ops.Attach)", shown: true}
	}
	if a.json {
		return nil
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPID\tSTATE\tWORKERS\tUP\tUSER\tSOCKET")
	for _, l := range all {
		up := "-"
		if l.Started != nil {
			up = client.Age(time.Since(*l.Started))
		}
		fmt.Fprintln(t, strings.Join([]string{l.Name, dash(l.PID), l.State, l.Workers, up, l.User, l.Socket}, "\t"))
	}
	return t.Flush()
}

func dash(n int) string {
	if n <= 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// describe asks a manager for its state.
func describe(f client.Found) listed {
	l := listed{Name: f.Name, Socket: f.Socket, PID: f.PID, User: "-", State: "-", Workers: "-"}
	if f.UID >= 0 {
		l.User = userName(f.UID)
	}
	err := f.Err
	var s *client.Status
	if err == nil {
		s, err = statusOf(f.Socket)
	}
	switch {
	case err == nil:
		l.State, l.Workers, l.Started = stateOf(s), workersOf(s), &s.Started
		return l
	case errors.Is(err, client.ErrForbidden):
		l.State = "not permitted"
	case errors.Is(err, client.ErrForeign):
		l.State = "of another user"
	case errors.Is(err, client.ErrNoAnswer), errors.Is(err, context.DeadlineExceeded):
		l.State = "no answer"
		if why := processState(f.PID); why != "" {
			l.State += ": " + why
		}
	default:
		l.State = "no manager"
	}
	l.Error = err.Error()
	return l
}

func statusOf(socket string) (*client.Status, error) {
	ctx, cancel := query()
	defer cancel()
	c, err := client.Dial(socket)
	if err != nil {
		return nil, err
	}
	return c.Status(ctx, client.StatusOptions{})
}

// stateOf returns the state of all pools: that of the one that is least well.
func stateOf(s *client.Status) string {
	state := "settled"
	for _, p := range s.Pools {
		switch {
		case p.Stopping != nil:
			return "stopping"
		case p.Hook != nil:
			state = "in the hook " + p.Hook.Name
		case !p.Settled && state == "settled":
			state = "not settled"
		case p.Pausing && state == "settled":
			state = "paused"
		}
	}
	return state
}

func workersOf(s *client.Status) string {
	ready, most := 0, 0
	for _, p := range s.Pools {
		ready += p.Counts.Ready
		most += p.Limits.MaxWorkers
	}
	return fmt.Sprintf("%d/%d", ready, most)
}

func (a *app) showStatus(check bool) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	s := new(client.Status)
	if a.json {
		ctx, cancel := query()
		defer cancel()
		q := map[string][]string{"usage": {"1"}}
		if a.pool != "" {
			q["pool"] = []string{a.pool}
		}
		body, err := c.Get(ctx, "/v1/status", q)
		a.peer = c.Peer()
		if err == nil {
			err = json.Unmarshal(body, s)
		}
		if err != nil {
			return a.failure(err)
		}
		a.rename(s)
		a.out.Write(body) // with fields that this version does not know
	} else {
		if s, err = a.status(c, true); err != nil {
			return err
		}
		if err := s.WriteTable(a.out); err != nil {
			return &exitError{code: exitFailed, text: err.Error()}
		}
	}
	if !check {
		return nil
	}
	for _, p := range s.Pools {
		if !p.Settled {
			return &exitError{code: exitFailed, text: a.prefix() + poolPrefix(s, p.Name) + p.Condition(s.Now), shown: true}
		}
	}
	return nil
}

// poolPrefix begins a message about a pool of a program that has several.
func poolPrefix(s *client.Status, pool string) string {
	if len(s.Pools) < 2 {
		return ""
	}
	return fmt.Sprintf("pool %q: ", pool)
}

func (a *app) ping() error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	ctx, cancel := query()
	defer cancel()
	began := time.Now()
	_, err = c.Get(ctx, "/healthz", nil)
	a.peer = c.Peer()
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Code == 503:
		return &exitError{code: exitNoAnswer, text: fmt.Sprintf("%smanager %d runs, but %s", a.prefix(), a.peer.PID, refused.Error())}
	case err != nil:
		return a.failure(err)
	}
	took := time.Since(began)
	if a.json {
		a.printJSON(struct {
			Manager string  `json:"manager"`
			PID     int     `json:"pid"`
			Seconds float64 `json:"seconds"`
		}{a.name, a.peer.PID, took.Seconds()})
	}
	a.printDone("manager %d answers in %v", a.peer.PID, took.Round(10*time.Microsecond))
	return nil
}

func (a *app) top(interval time.Duration, once bool) error {
	if interval < 100*time.Millisecond {
		return usagef("--interval %v: it must be at least 100ms", interval)
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	if _, err := a.status(c, false); err != nil {
		return err
	}
	err = top.Run(top.Config{Client: c, Pool: a.pool, Interval: interval, Once: once, Out: a.out})
	if err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return a.failure(err)
	}
	return nil
}
