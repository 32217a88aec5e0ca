package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/ops/client"
)

const (
	exitSVUsage = 100 // as sv
	maxFailures = 99

	checkLimit = time.Second            // of one run of the script check
	checkPause = 420 * time.Millisecond // between two
)

// An svVerb is a verb of sv of runit. The zero value shows the status.
type svVerb struct {
	names string // the first one is shown; sv needs its first letter alone
	short string

	bytes string
	until string // the state that ends the wait
	waits bool   // also without -v
	check bool   // the script check decides, too
	kill  bool   // k after the wait
	keep  string // the file down is written (down) or removed (up)
	isUp  bool   // --keep is possible, and removes the file
	down  bool   // --keep is possible, and writes it

	// skip reports that there is nothing to be sent.
	skip func(*client.Service) bool
}

func wantedUp(s *client.Service) bool { return s.Want == client.WantUp && s.State != client.StateEnded }
func stopping(s *client.Service) bool { return s.Want != client.WantUp && s.Term }
func isDown(s *client.Service) bool   { return s.PID == 0 }

const restarted = "restarted,down" // a service that is down needs no restart

var svVerbs = []svVerb{
	{names: "status s", short: "show it"},
	{names: "up u", short: "start it, and keep it up", bytes: "u", until: "up", check: true, isUp: true, skip: wantedUp},
	{names: "down d", short: "stop it, and keep it down", bytes: "d", until: "down", down: true, skip: stopping},
	{names: "once o", short: "start it, and not again", bytes: "o", until: "started"},
	{names: "O", short: "do not start it again", bytes: "o", until: "started,down", skip: isDown},
	{names: "pause p", short: "send SIGSTOP", bytes: "p", until: "paused,down"},
	{names: "cont c", short: "send SIGCONT", bytes: "c", until: "continued,down"},
	{names: "hup h l", short: "send SIGHUP", bytes: "h"},
	{names: "alarm a", short: "send SIGALRM", bytes: "a"},
	{names: "interrupt i", short: "send SIGINT", bytes: "i"},
	{names: "quit q", short: "send SIGQUIT", bytes: "q"},
	{names: "1", short: "send SIGUSR1", bytes: "1"},
	{names: "2", short: "send SIGUSR2", bytes: "2"},
	{names: "term t", short: "send SIGTERM", bytes: "t", until: restarted, check: true},
	{names: "kill k", short: "send SIGKILL", bytes: "k", until: restarted, check: true},
	{names: "exit e x", short: "stop it, and end its supervision", bytes: "x", until: "ended"},

	{names: "start", short: "up, and wait", bytes: "u", until: "up", waits: true, check: true, isUp: true, skip: wantedUp},
	{names: "stop", short: "down, and wait", bytes: "d", until: "down", waits: true, down: true, skip: stopping},
	{names: "reload", short: "hup, and report", bytes: "h", waits: true},
	{names: "restart r", short: "stop it, start it, and wait", bytes: "tcu", until: "restarted", waits: true, check: true},
	{names: "try-restart", short: "restart if it is up", bytes: "tc", until: restarted, waits: true, check: true},
	{names: "shutdown", short: "exit, and wait", bytes: "x", until: "ended", waits: true},
	{names: "force-stop", short: "stop; kill it after the wait", bytes: "d", until: "down", waits: true, kill: true, down: true, skip: stopping},
	{names: "force-reload", short: "try-restart; kill it after the wait", bytes: "tc", until: restarted, waits: true, check: true, kill: true},
	{names: "force-restart", short: "restart; kill it after the wait", bytes: "tcu", until: "restarted", waits: true, check: true, kill: true},
	{names: "force-shutdown", short: "shutdown; kill it after the wait", bytes: "x", until: "ended", waits: true, kill: true},
	{names: "check", short: "wait until the script check succeeds", waits: true, check: true},

	{names: "D", short: "down --keep", bytes: "d", until: "down", keep: "down", skip: stopping},
	{names: "U", short: "up --keep", bytes: "u", until: "up", check: true, keep: "up", skip: wantedUp},
	{names: "Q", short: "once, and write the file down", bytes: "o", until: "started", keep: "down"},
}

func findSVVerb(name string) *svVerb {
	for i := range svVerbs {
		if slices.Contains(strings.Fields(svVerbs[i].names), name) {
			return &svVerbs[i]
		}
	}
	return nil
}

func (a *app) svCommand() *cobra.Command {
	r := &svRun{app: a}
	var help strings.Builder
	for _, v := range svVerbs {
		fmt.Fprintf(&help, "  %-18s %s\n", strings.Join(strings.Fields(v.names), ", "), v.short)
	}
	cmd := &cobra.Command{
		Use: "sv [-v] [-w SECS] VERB NAME...", GroupID: groupSteer, ValidArgsFunction: a.completeSV,
		Short: "Show and command the services of prefork watch, as sv of runit does",
		Long: `Shows and commands services of prefork watch with the verbs of sv. NAME is the name of a
service, NAME/log that of its logger, or the path of a service directory. "status" alone
shows all services.

` + help.String() + `
The verbs from start to check wait, at most for -w seconds, and print the outcome; the
others do so with -v. The exit status is the number of services that have failed, at
most 99, or 100 for wrong usage.`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return svUsage(cmd, "")
			case findSVVerb(args[0]) == nil:
				return svUsage(cmd, fmt.Sprintf("there is no verb %s", args[0]))
			case len(args) == 1 && args[0] != "status" && args[0] != "s":
				return svUsage(cmd, args[0]+" needs the name of a service")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			v := *findSVVerb(args[0])
			if r.keep {
				switch {
				case v.isUp:
					v.keep = "up"
				case v.down:
					v.keep = "down"
				default:
					return svUsage(cmd, "--keep is for up, start, down and stop; "+args[0])
				}
			}
			if r.seconds < 0 {
				return svUsage(cmd, fmt.Sprintf("-w %d", r.seconds))
			}
			r.verb = v
			return r.run(args[1:])
		},
	}
	wait := 7
	if n, err := strconv.Atoi(os.Getenv("SVWAIT")); err == nil && n >= 0 {
		wait = n
	}
	cmd.Flags().IntVarP(&r.seconds, "wait", "w", wait, "how many seconds to wait; the default comes from $SVWAIT")
	cmd.Flags().BoolVarP(&r.verbose, "verbose", "v", false, "wait, and print the outcome")
	cmd.Flags().BoolVar(&r.keep, "keep", false, "write the file down for down and stop, or remove it for up and start")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return svUsage(cmd, err.Error()) })
	return cmd
}

func svUsage(cmd *cobra.Command, what string) error {
	if what = strings.TrimSpace(what); what != "" {
		what += ": "
	}
	return &exitError{code: exitSVUsage, text: fmt.Sprintf("sv: %susage: %s; see %s --help", what, cmd.UseLine(), cmd.CommandPath())}
}

// An svRun carries out one verb for some services.
type svRun struct {
	*app
	verb          svVerb
	seconds       int
	verbose, keep bool

	client   *client.Client
	deadline time.Time
	before   map[string]*client.Service // by their names in the protocol

	mu       sync.Mutex
	failures int
	results  []svResult
}

// An svResult is the object that --json prints for a service.
type svResult struct {
	Name    string          `json:"name"`
	Outcome string          `json:"outcome"` // ok, fail, timeout, kill; "" for a status
	Error   string          `json:"error,omitempty"`
	Service *client.Service `json:"service"`
}

func (r *svRun) run(names []string) error {
	c, all, err := r.ask()
	if err != nil {
		e := err.(*exitError)
		e.code = min(max(len(names), 1), maxFailures)
		return e
	}
	r.client = c
	wait := r.verb.waits || r.verbose
	r.deadline = time.Now().Add(time.Duration(r.seconds) * time.Second)
	if len(names) == 0 {
		for _, s := range all.Services {
			names = append(names, s.Name)
		}
	}
	r.before = make(map[string]*client.Service)
	groups := make(map[string]*svGroup)
	var order []string
	for _, name := range names {
		s := find(all.Services, name)
		switch {
		case s == nil:
			r.report(name, "fail", nil, fmt.Sprintf("fail: %s: there is no such service", oneLine(name)))
		case r.verb.bytes == "" && !r.verb.check:
			r.status(name, s)
		case s.State == client.StateEnded && r.verb.until == "ended":
			r.done(name, s, wait)
		case r.verb.bytes == "" && s.State == client.StateEnded:
			r.report(name, "fail", s, "fail: "+s.Line(name, time.Now()))
		case r.verb.bytes == "" && s.PID == 0: // check of a service that is down
			r.done(name, s, true)
		default:
			g := svGroup{bytes: r.verb.bytes, keep: r.verb.keep}
			if wait {
				g.until = r.verb.until
			}
			if r.verb.bytes == "" {
				g.until = "up"
			}
			if r.verb.skip != nil && r.verb.skip(s) {
				g.bytes = ""
			}
			key := g.bytes
			if groups[key] == nil {
				groups[key] = &g
				order = append(order, key)
			}
			groups[key].add(name, s)
			r.before[s.Name] = s
		}
	}
	var wg sync.WaitGroup
	for _, key := range order {
		for _, g := range groups[key].split() {
			wg.Go(func() { r.command(g, wait) })
		}
	}
	wg.Wait()
	if r.json {
		r.printJSON(struct {
			Manager  string     `json:"manager"`
			Services []svResult `json:"services"`
			Exit     int        `json:"exit"`
		}{r.name, r.results, min(r.failures, maxFailures)})
	}
	if r.failures > 0 {
		return &exitError{code: min(r.failures, maxFailures), shown: true}
	}
	return nil
}

// ask returns the services as they are.
func (r *svRun) ask() (*client.Client, *client.Services, error) {
	c, err := r.dial()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := query()
	defer cancel()
	all, err := c.Services(ctx)
	r.peer = c.Peer()
	if err != nil {
		return nil, nil, r.failure(err)
	}
	return c, all, nil
}

// find returns the service with a name, or with the path of its directory.
func find(all []client.Service, name string) *client.Service {
	path := ""
	if filepath.IsAbs(name) || strings.HasPrefix(name, ".") {
		path, _ = filepath.Abs(name)
	}
	name = strings.TrimRight(name, "/")
	for i := range all {
		s := &all[i]
		for _, s := range []*client.Service{s, s.Log} {
			if s != nil && (s.Name == name || path != "" && s.Path == path) {
				return s
			}
		}
	}
	return nil
}

// An svGroup is some services that get the same bytes.
type svGroup struct {
	bytes, until, keep string
	names              []string // as in the protocol
	shown              map[string]string
	services           map[string]*client.Service
}

func (g *svGroup) add(name string, s *client.Service) {
	if g.shown == nil {
		g.shown, g.services = make(map[string]string), make(map[string]*client.Service)
	}
	if g.shown[s.Name] == "" {
		g.names = append(g.names, s.Name)
	}
	g.shown[s.Name], g.services[s.Name] = name, s
}

// split divides a group into those that a request has room for.
func (g *svGroup) split() (all []*svGroup) {
	const room = 5 << 10
	left := 0
	for _, name := range g.names {
		if left -= 3*len(name) + len("&name="); left < 0 {
			all = append(all, &svGroup{bytes: g.bytes, until: g.until, keep: g.keep, shown: g.shown, services: g.services})
			left = room
		}
		last := all[len(all)-1]
		last.names = append(last.names, name)
	}
	return all
}

// command sends the bytes to a group and reports the outcomes.
func (r *svRun) command(g *svGroup, wait bool) {
	if g.bytes+g.until+g.keep == "" { // nothing to do
		for _, name := range g.names {
			r.done(g.shown[name], g.services[name], wait)
		}
		return
	}
	left := make(map[string]bool)
	for _, name := range g.names {
		left[name] = true
	}
	var checks sync.WaitGroup
	cmd := client.ServiceCommand{Names: g.names, Bytes: g.bytes, Until: g.until, Keep: g.keep, Timeout: max(time.Until(r.deadline), time.Millisecond)}
	err := r.client.CommandServices(context.Background(), cmd, func(o client.ServiceOutcome) {
		delete(left, o.Name)
		if o.Outcome == client.Done && wait && r.verb.check {
			checks.Go(func() { r.check(g.shown[o.Name], o) })
			return
		}
		r.outcome(g.shown[o.Name], o, wait)
	})
	checks.Wait()
	if err != nil {
		text := strings.TrimPrefix(r.failure(err).Error(), r.prefix())
		for _, name := range g.names {
			if left[name] {
				r.report(g.shown[name], "fail", nil, fmt.Sprintf("fail: %s: %s", oneLine(g.shown[name]), text))
			}
		}
	}
}

// outcome reports the outcome for one service.
func (r *svRun) outcome(name string, o client.ServiceOutcome, wait bool) {
	switch o.Outcome {
	case client.Done:
		s := o.Service
		if s == nil { // its entry has gone, as it was asked to
			s = &client.Service{State: client.StateEnded}
		}
		r.done(name, s, wait)
	case client.Pending:
		r.late(name, o.Name, o.Service)
	default:
		text := fmt.Sprintf("fail: %s: %s", oneLine(name), oneLine(o.Error))
		if o.Service != nil && o.Service.GaveUp && o.Service.LastEnd != nil {
			text += "; run " + o.Service.LastEnd.Words()
		}
		r.report(name, "fail", o.Service, text)
	}
}

// done reports a service that is as wanted.
func (r *svRun) done(name string, s *client.Service, wait bool) {
	text := ""
	if wait && !r.quiet {
		text = "ok: " + s.Line(name, time.Now())
	}
	r.report(name, "ok", s, text)
}

func (r *svRun) status(name string, s *client.Service) {
	if s.State == client.StateEnded {
		r.report(name, "fail", s, "fail: "+s.Line(name, time.Now()))
		return
	}
	r.report(name, "", s, s.Line(name, time.Now()))
}

// late reports a service that is not as wanted in time.
func (r *svRun) late(name, service string, s *client.Service) {
	word := "timeout"
	if r.verb.kill {
		word = "kill"
		err := r.client.CommandServices(context.Background(), client.ServiceCommand{Names: []string{service}, Bytes: "k"}, func(client.ServiceOutcome) {})
		if err != nil {
			r.note("%v", err)
		}
	}
	if s == nil {
		s = &client.Service{State: client.StateEnded}
	}
	r.report(name, word, s, word+": "+s.Line(name, time.Now())+ends(r.before[service], s))
}

// ends says how run has ended since the command; "" if it has not, or should.
func ends(before, now *client.Service) string {
	if before == nil || now.LastEnd == nil || now.Want != client.WantUp {
		return ""
	}
	switch n := now.Ends - before.Ends; {
	case n <= 0:
		return ""
	case n == 1:
		return "; run " + now.LastEnd.Words()
	default:
		return fmt.Sprintf("; run %s, %d times", now.LastEnd.Words(), n)
	}
}

func (r *svRun) report(name, outcome string, s *client.Service, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if outcome != "ok" && outcome != "" {
		r.failures++
	}
	result := svResult{Name: name, Outcome: outcome, Service: s}
	if outcome == "fail" {
		result.Error = text
	}
	r.results = append(r.results, result)
	if text != "" && !r.json {
		fmt.Fprintln(r.out, text)
	}
}

// check runs the script check of a service until it succeeds. No event shows when
// it would.
func (r *svRun) check(name string, o client.ServiceOutcome) {
	if o.Service == nil || o.Service.PID == 0 || !executable(filepath.Join(o.Service.Path, "check")) {
		r.outcome(name, o, true)
		return
	}
	for !runCheck(o.Service.Path) {
		if time.Until(r.deadline) <= 0 {
			r.late(name, o.Name, r.fresh(o))
			return
		}
		time.Sleep(min(checkPause, max(time.Until(r.deadline), 0)))
	}
	s := r.fresh(o)
	if s == nil || s.PID == 0 {
		r.late(name, o.Name, s)
		return
	}
	r.done(name, s, true)
}

// fresh returns a service as it is now.
func (r *svRun) fresh(o client.ServiceOutcome) *client.Service {
	ctx, cancel := query()
	defer cancel()
	all, err := r.client.Services(ctx, o.Name)
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Code == 404:
		return nil
	case err != nil:
		return o.Service
	}
	return &all.Services[0]
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// runCheck runs the script check in the directory of a service.
func runCheck(dir string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), checkLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./check")
	cmd.Dir = dir
	ownGroup(cmd)
	return cmd.Run() == nil
}

func (a *app) completeSV(_ *cobra.Command, have []string, _ string) (completions, cobra.ShellCompDirective) {
	var all completions
	if len(have) == 0 {
		for _, v := range svVerbs {
			if name := strings.Fields(v.names)[0]; len(name) > 1 {
				all = append(all, cobra.CompletionWithDesc(name, v.short))
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
	_, services, err := (&svRun{app: a}).ask()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, s := range services.Services {
		for _, s := range []*client.Service{&s, s.Log} {
			if s != nil && !slices.Contains(have[1:], s.Name) {
				all = append(all, cobra.CompletionWithDesc(s.Name, s.State))
			}
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
