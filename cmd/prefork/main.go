// Command prefork shows and steers prefork managers that run on this machine, and
// runs any program as a pool of workers (prefork run). It asks managers by their
// control sockets, which package ops of the library serves:
//
//	prefork ls
//	prefork status
//	prefork -s web reload
//	prefork top
//
// README.md lists the verbs. The exit status is 0 if it is done, 1 if it failed, 2
// for wrong usage, 3 if no manager runs, 4 if it is not permitted, 5 if there was
// no answer, and 6 if it is not done in time and goes on.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/cmd/prefork/internal/chain"
	"github.com/prefork-go/prefork/cmd/prefork/internal/logger"
	"github.com/prefork-go/prefork/ops/client"
)

// The main goroutine stays on the main thread if this process becomes another
// program: the kernel keeps the death signal of the parent by thread.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "exec" || chain.Knows(filepath.Base(os.Args[0])) {
		runtime.LockOSThread()
	}
}

func main() {
	if name := filepath.Base(os.Args[0]); chain.Knows(name) { // a link of that name
		os.Exit(chain.Main(name, os.Args[1:], os.Stderr))
	}
	os.Exit(run(arguments(os.Args), os.Stdout, os.Stderr))
}

// arguments returns the arguments of the command. A link named sv acts as the verb.
func arguments(argv []string) []string {
	if filepath.Base(argv[0]) == "sv" {
		return append([]string{"sv"}, argv[1:]...)
	}
	return argv[1:]
}

// queryTimeout is how long a manager may take to answer a query. Tests have a
// shorter one.
var queryTimeout = 5 * time.Second

// An app is one run of the command.
type app struct {
	out, err io.Writer

	socket, pool string
	timeout      time.Duration
	json, quiet  bool

	name string // of the manager, for messages
	peer client.Peer
}

func run(args []string, out, errs io.Writer) (status int) {
	// These take all arguments as they are. The last command of a service's script
	// should not have to wait for the flags of all verbs.
	if len(args) > 0 && !asksForHelp(args[1:]) {
		switch args[0] {
		case "exec":
			return chain.Main("prefork exec", args[1:], errs)
		case "log":
			return logger.Main("prefork log", args[1:], errs)
		}
	}
	a := &app{out: out, err: errs}
	root := a.command()
	root.SetArgs(startServerRestart(root, negativeScale(args)))
	root.SetOut(out)
	root.SetErr(errs)
	return a.report(root.ExecuteC())
}

// asksForHelp reports whether the arguments of exec or log ask for help.
func asksForHelp(args []string) bool {
	return len(args) > 0 && (args[0] == "-h" || args[0] == "--help")
}

// report prints an error of a verb and returns the exit status.
func (a *app) report(verb *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	var e *exitError
	if !errors.As(err, &e) { // of cobra
		e = &exitError{code: exitUsage, text: err.Error() + "; see " + verb.CommandPath() + " --help"}
		if verb.HasParent() {
			e.text = fmt.Sprintf("%s: %s (%s)", verb.Name(), e.text, verb.UseLine())
		}
	}
	if e.text != "" {
		if a.json && !e.shown {
			a.printJSON(problem{Error: e.text, Manager: a.name, Exit: e.code})
		}
		fmt.Fprintln(a.err, e.text)
	}
	return e.code
}

// A problem is the object that --json prints for an error.
type problem struct {
	Manager string `json:"manager,omitempty"`
	Error   string `json:"error"`
	Exit    int    `json:"exit"`
}

func (a *app) printJSON(v any) {
	data, err := json.Marshal(v)
	if err != nil { // the values are structs of this program
		panic(err)
	}
	fmt.Fprintf(a.out, "%s\n", data)
}

// printDone prints a line about what was done, unless the user wants none.
func (a *app) printDone(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.out, "%s: %s\n", a.name, fmt.Sprintf(format, args...))
	}
}

// note prints a line about what is going on.
func (a *app) note(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.err, "%s: %s\n", a.name, fmt.Sprintf(format, args...))
	}
}

const byFlag = "by"

// negativeScale makes the argument "-1" of the verb scale, which looks like a
// flag, the value of one.
func negativeScale(args []string) []string {
	scale := false
	var out []string
	for i, arg := range args {
		switch {
		case arg == "--":
			return append(out, args[i:]...)
		case (arg == "exec" || arg == "log" || arg == "run") && !scale && (i == 0 || !strings.HasPrefix(args[i-1], "-")):
			return append(out, args[i:]...) // the rest is a program's
		case arg == "scale":
			scale = true
		case scale && isNegative(arg):
			arg = "--" + byFlag + "=" + arg
		}
		out = append(out, arg)
	}
	return out
}

func isNegative(s string) bool {
	number, ok := strings.CutPrefix(s, "-")
	return ok && isNumber(number)
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// command returns the command with all verbs.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "prefork",
		Short: "Shows and steers prefork managers",
		Long: `Prefork shows and steers prefork managers that run on this machine.
Without -s it is for the only one that runs, or for the one that PREFORK_CONTROL names.
A command ends with its outcome: reload when the new workers are ready, stop when the last
worker is gone.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 no manager runs, 4 not permitted, 5 no
answer, 6 not done within --timeout, and goes on.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(a.err)
			cmd.Usage()
			return &exitError{code: exitUsage}
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if a.timeout <= 0 {
				return usagef("--timeout %v: it must be more than 0, such as 30s", a.timeout)
			}
			return nil
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see %s --help", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVarP(&a.socket, "socket", "s", "", "the manager: its name, the path of its socket, or @NAME of one")
	f.StringVarP(&a.pool, "pool", "p", "", "the pool, of a program that has several")
	f.DurationVar(&a.timeout, "timeout", time.Minute, "how long a command may take")
	f.BoolVar(&a.json, "json", false, "print one JSON object, also for an error")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print errors and results only")
	root.RegisterFlagCompletionFunc("socket", a.completeSockets)
	root.RegisterFlagCompletionFunc("pool", a.completePools)
	root.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)

	root.AddGroup(&cobra.Group{ID: groupShow, Title: "Show:"}, &cobra.Group{ID: groupSteer, Title: "Steer:"}, &cobra.Group{ID: groupRun, Title: "Run:"}, &cobra.Group{ID: groupOther, Title: "Other:"})
	root.SetHelpCommandGroupID(groupOther)
	a.addQueries(root)
	a.addCommands(root)
	root.AddCommand(a.waitCommand(), a.startCommand(), a.zapCommand(), a.programCommand(), a.watchCommand(), a.svCommand(),
		a.execCommand(), a.logCommand(), completionCommand())
	root.SetVersionTemplate("prefork {{.Version}}\n")
	return root
}

const (
	groupShow  = "show"
	groupSteer = "steer"
	groupRun   = "run"
	groupOther = "other"
)

// version returns the version of this program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown version)"
	}
	return info.Main.Version
}
