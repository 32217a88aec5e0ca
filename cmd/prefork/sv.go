package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
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

func svUsage(cmd *cobra.Command, wrong string) error {
	if wrong = strings.TrimSpace(wrong); wrong != "" {
		wrong += ": "
	}
	return &exitError{code: exitSVUsage, text: fmt.Sprintf("sv: %susage: %s; see %s --help", wrong, cmd.UseLine(), cmd.CommandPath())}
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
