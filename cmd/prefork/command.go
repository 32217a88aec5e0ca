package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/cmd/prefork/internal/top"
	"github.com/prefork-go/prefork/ops/client"
)

// simple returns a verb without arguments or flags.
func (a *app) simple(name, short string, aliases ...string) *cobra.Command {
	return &cobra.Command{
		Use: name, Aliases: aliases, Short: short, GroupID: groupSteer, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.runCommand(client.Command{Name: name}) },
	}
}

func (a *app) addCommands(root *cobra.Command) {
	var how string
	reload := a.simple("reload", "Replace the workers, as the program has chosen for SIGHUP", "hup")
	reload.RunE = func(*cobra.Command, []string) error {
		return a.runCommand(client.Command{Name: "reload", Query: parameters("how", how)})
	}
	reload.Long = `Replaces the workers, as the program has chosen for SIGHUP, or in the way of --how:

  rolling      each worker is stopped when its replacement is ready
  plain        all are stopped at once
  interval=1s  one is stopped each second

It ends when all are replaced. If the new generation fails, the workers before it stay
(rolling), and the exit status is 1. If the same reload is under way, it waits for its
end first, so that a configuration that was changed before the command is always read.`
	reload.Flags().StringVar(&how, "how", "", "the way instead: rolling, plain or interval=1s")
	reload.RegisterFlagCompletionFunc("how", cobra.FixedCompletions([]string{"rolling", "plain", "interval=1s"}, cobra.ShellCompDirectiveNoFileComp))

	restart := a.simple("restart", "Replace all workers at once, or those with these IDs one after the other")
	restart.Use, restart.Args, restart.ValidArgsFunction = "restart [ID...]", cobra.ArbitraryArgs, a.completeIDs
	restart.Long = "Replaces all workers at once; or those with these IDs, each when its replacement is ready.\n" + aboutIDs
	restart.RunE = func(_ *cobra.Command, ids []string) error {
		if len(ids) == 0 {
			return a.runCommand(client.Command{Name: "restart"})
		}
		return a.workers("replace", ids, nil, true)
	}

	upgrade := a.simple("upgrade", "Replace the manager by a new one, of the program on disk")
	upgrade.Long = `Starts a new manager, of the program file on disk. It takes over the sockets when its
workers are ready. If it fails, the old manager goes on, and the exit status is 1.`

	var by string
	scale := &cobra.Command{
		Use: "scale N|+N|-N", Short: "Change the number of workers", GroupID: groupSteer, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if by != "" {
				args = append(args, by)
			}
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return err
			}
			return a.scale(args[0])
		},
	}
	scale.Flags().StringVar(&by, byFlag, "", "the same as -N")
	scale.Flags().MarkHidden(byFlag)

	var toWorkers bool
	signal := &cobra.Command{
		Use: "signal SIG [ID...]", Short: "Deliver a signal to the manager, or send it to workers", GroupID: groupSteer,
		Long: "Delivers a signal to the manager, which acts by the program's table of signals (TrapSignals);\n" +
			"or sends it to workers. " + aboutIDs,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeSignal,
		RunE: func(_ *cobra.Command, args []string) error { return a.signal(args[0], args[1:], toWorkers) },
	}
	signal.Flags().BoolVar(&toWorkers, "workers", false, "send it to all workers")

	kill := &cobra.Command{
		Use: "kill ID...", Short: "Kill workers (SIGKILL)", GroupID: groupSteer, Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeIDs,
		Long: "Kills workers (SIGKILL), and waits until they are gone. Others take their places.\n" + aboutIDs,
		RunE: func(_ *cobra.Command, ids []string) error { return a.workers("kill", ids, nil, false) },
	}

	var stay bool
	stop := a.simple("stop", "Stop the program, or workers, and wait until they are gone", "down", "exit", "shutdown")
	stop.Use, stop.Args, stop.ValidArgsFunction = "stop [ID...]", cobra.ArbitraryArgs, a.completeIDs
	stop.Long = "Stops the program, or the workers with these IDs, and waits until they are gone. Other workers\n" +
		"take the places of those. " + aboutIDs
	stop.RunE = func(_ *cobra.Command, ids []string) error {
		switch {
		case len(ids) > 0 && stay:
			return usagef("--stay is for the program, and not for workers")
		case len(ids) > 0:
			return a.workers("stop", ids, nil, false)
		case stay:
			return a.runCommand(client.Command{Name: "stop", Query: parameters("stay", "1")})
		}
		return a.runCommand(client.Command{Name: "stop"})
	}
	stop.Flags().BoolVar(&stay, "stay", false, "set the stopped flag of the service, so that it stays down")

	loglevel := &cobra.Command{
		Use: "loglevel LEVEL", Short: "Set the level of the log: debug, info, warn or error", GroupID: groupSteer, Args: cobra.ExactArgs(1),
		ValidArgs: []string{"debug", "info", "warn", "error"},
		Long: "Sets the level of the log, in the manager and its workers. The program's logger must use\n" +
			"Manager.LogLevel as its level.",
		RunE: func(_ *cobra.Command, args []string) error {
			return a.runCommand(client.Command{Name: "loglevel", Query: parameters("level", args[0])})
		},
	}
	pause := a.simple("pause", "Have the workers pause")
	pause.Long = `Has the workers pause until prefork resume: they finish their current work and begin no
more. Connections wait. It ends when all have paused.`
	root.AddCommand(
		reload, restart, upgrade, scale,
		pause, a.simple("resume", "End the pause", "cont"),
		signal, kill, stop, loglevel,
	)
	for _, s := range []struct{ verb, by string }{{"ttin", "+1"}, {"ttou", "-1"}} {
		root.AddCommand(&cobra.Command{
			Use: s.verb, Short: "The same as scale " + s.by, Hidden: true, Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return a.scale(s.by) },
		})
	}
	for _, s := range []struct{ verb, signal string }{
		{"alarm", "ALRM"}, {"interrupt", "INT"}, {"quit", "QUIT"}, {"1", "USR1"}, {"2", "USR2"}, {"term", "TERM"},
	} {
		root.AddCommand(&cobra.Command{
			Use: s.verb, Short: "The same as signal " + s.signal, Hidden: true, Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return a.signal(s.signal, nil, false) },
		})
	}
}

const aboutIDs = "IDs are the numbers in the column ID of prefork status,\nand not pids."

func parameters(name, value string) url.Values {
	if value == "" {
		return nil
	}
	return url.Values{name: {value}}
}

func (a *app) scale(workers string) error {
	if _, err := strconv.Atoi(workers); err != nil {
		return usagef("scale %s: it takes a number, such as 8, +1 or -1", workers)
	}
	return a.runCommand(client.Command{Name: "scale", Query: parameters("workers", workers)})
}

func (a *app) signal(name string, ids []string, toWorkers bool) error {
	if len(ids) > 0 {
		if toWorkers {
			return usagef("--workers is for all workers: leave it out, or the IDs")
		}
		return a.workers("signal", ids, parameters("signal", name), false)
	}
	q := parameters("signal", name)
	if toWorkers {
		q.Set("to", "workers")
	}
	return a.runCommand(client.Command{Name: "signal", Query: q})
}

// A result is the object that --json prints for a command.
type result struct {
	Manager string `json:"manager"`
	client.Answer
	Exit int `json:"exit"`
}

// runCommand carries out one command and prints its outcome.
func (a *app) runCommand(cmd client.Command) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	// A manager that cannot answer shows here, and not after the command's timeout.
	st, err := a.status(c, false)
	if err != nil {
		return err
	}
	r, err := a.carryOut(c, st, cmd)
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(r)
	}
	return a.outcome(c, r)
}

// workers carries out a command for each of some workers, one after the other. If
// first is set, it ends at the first that fails.
func (a *app) workers(verb string, ids []string, query url.Values, first bool) error {
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err != nil || n < 0 {
			return usagef("%q is not the ID of a worker: prefork status lists them", id)
		}
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	st, err := a.status(c, false)
	if err != nil {
		return err
	}
	worst := &exitError{shown: true}
	var all []result
	for _, id := range ids {
		r, err := a.carryOut(c, st, client.Command{Name: "workers/" + id + "/" + verb, Query: query})
		if err == nil {
			err = a.outcome(c, r)
		} else {
			r = result{Manager: a.name, Answer: client.Answer{Command: "workers/" + id + "/" + verb, Outcome: client.Failed, Error: err.Error()}}
		}
		if e, ok := err.(*exitError); ok {
			if r.Exit = e.code; worst.code == 0 {
				worst.code = e.code
			}
			if len(ids) > 1 || !a.json {
				worst.text = appendLine(worst.text, e.text)
			}
		}
		all = append(all, r)
		if first && worst.code != 0 {
			break
		}
	}
	if a.json {
		a.printJSON(struct {
			Manager string   `json:"manager"`
			Answers []result `json:"answers"`
			Exit    int      `json:"exit"`
		}{a.name, all, worst.code})
	}
	if worst.code == 0 {
		return nil
	}
	return worst
}

func appendLine(text, line string) string {
	if text == "" {
		return line
	}
	return text + "\n" + line
}

// carryOut sends a command and waits for the outcome. It prints how far a
// replacement is.
func (a *app) carryOut(c *client.Client, st *client.Status, cmd client.Command) (result, error) {
	cmd.Pool, cmd.Timeout = a.pool, a.timeout
	p := &progress{app: a, status: st, verb: cmd.Name, pools: make(map[string]*replacement)}
	if cmd.Name != "loglevel" {
		cmd.Events = p.event
	}
	began := time.Now()
	answer, err := c.Do(context.Background(), cmd)
	a.peer = c.Peer()
	switch {
	case err == nil:
	case cmd.Name == "stop" && isEnding(err) && a.hasEnded(a.peer): // before it could answer
		answer = &client.Answer{Command: cmd.Name, Outcome: client.Done, Text: "stopped", Seconds: time.Since(began).Seconds()}
	default:
		return result{}, a.failure(err)
	}
	if len(answer.Pools) == 0 {
		p.complete(answer, "")
	}
	for i := range answer.Pools {
		p.complete(&answer.Pools[i], answer.Pools[i].Pool)
	}
	r := result{Manager: a.name, Answer: *answer}
	switch answer.Outcome {
	case client.Done:
	case client.Pending:
		r.Exit = exitPending
	default:
		r.Exit = exitFailed
	}
	return r, nil
}

// outcome prints the outcome of a command.
func (a *app) outcome(c *client.Client, r result) error {
	pools := r.Pools
	if len(pools) == 0 {
		pools = []client.Answer{r.Answer}
	}
	var text string
	for _, p := range pools {
		label := ""
		if len(pools) > 1 {
			label = fmt.Sprintf("pool %q: ", p.Pool)
		}
		switch p.Outcome {
		case client.Done:
			a.printDone("%s%s", label, oneLine(p.Text))
		case client.Pending:
			text = appendLine(text, fmt.Sprintf("%s%s%s is not done after %v, and goes on%s", a.prefix(), label, top.CommandName(r.Command), a.timeout, a.whyPending(c, p)))
		default:
			text = appendLine(text, fmt.Sprintf("%s%s%s failed: %s", a.prefix(), label, top.CommandName(r.Command), oneLine(p.Error)))
		}
	}
	if r.Exit == exitDone {
		return nil
	}
	return &exitError{code: r.Exit, text: text, shown: true}
}

// whyPending explains why a command takes long: by its answer, or by the hook
// that keeps the loop.
func (a *app) whyPending(c *client.Client, p client.Answer) string {
	ctx, cancel := query()
	defer cancel()
	s, err := c.Status(ctx, client.StatusOptions{Pool: a.pool})
	if err == nil {
		for _, pool := range s.Pools {
			if pool.Hook != nil && (p.Pool == "" || p.Pool == pool.Name) {
				return fmt.Sprintf("; manager %d runs, but its loop is in the hook %s since %s", s.PID, pool.Hook.Name, client.Age(s.Now.Sub(pool.Hook.Since)))
			}
		}
	}
	if p.Error == "" || strings.Contains(p.Error, "goes on") {
		return ""
	}
	return "; " + oneLine(p.Error)
}

// progress prints how far a command is, from the events.
type progress struct {
	*app
	status *client.Status
	verb   string
	pools  map[string]*replacement
	last   time.Time // of the last line
}

// A replacement is a generation that replaces the workers of a pool.
type replacement struct {
	generation, of int
	slots          map[int]bool // those with a worker of it that was ready
}

// progressInterval bounds how often a line about the progress is printed.
const progressInterval = 500 * time.Millisecond

func (p *progress) event(e client.Event) {
	if p.verb != "reload" && p.verb != "restart" {
		return
	}
	switch e.Type {
	case "generation":
		var d struct {
			Generation int `json:"gen"`
			MaxWorkers int `json:"max_workers"`
		}
		if json.Unmarshal(e.Data, &d) == nil {
			p.pools[e.Pool] = &replacement{generation: d.Generation, of: d.MaxWorkers, slots: make(map[int]bool)}
		}
	case "worker":
		var d struct {
			Slot       int    `json:"slot"`
			Generation int    `json:"gen"`
			State      string `json:"state"`
		}
		if json.Unmarshal(e.Data, &d) != nil || d.State != "ready" || d.Slot < 0 {
			return
		}
		if r := p.pools[e.Pool]; r != nil && r.generation == d.Generation {
			r.slots[d.Slot] = true
			p.print(e.Pool, r)
		}
	}
}

func (p *progress) print(pool string, r *replacement) {
	now := time.Now()
	if len(r.slots) >= r.of || now.Sub(p.last) < progressInterval {
		return
	}
	p.last = now
	p.note("%sgeneration %d: %d of %d replaced …", poolPrefix(p.status, pool), r.generation, len(r.slots), r.of)
}

// complete gives the answer to a replacement its text.
func (p *progress) complete(answer *client.Answer, pool string) {
	if answer.Outcome != client.Done || p.verb != "reload" && p.verb != "restart" {
		return
	}
	if pool == "" && len(p.status.Pools) == 1 {
		pool = p.status.Pools[0].Name
	}
	if r := p.pools[pool]; r != nil && r.generation == answer.Generation {
		answer.Text = fmt.Sprintf("generation %d is in place: %s replaced in %.1f s", answer.Generation, count(len(r.slots), "worker"), answer.Seconds)
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
