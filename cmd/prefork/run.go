package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	program "github.com/prefork-go/prefork/cmd/prefork/internal/run"
)

func (a *app) programCommand() *cobra.Command {
	var o program.Options
	var restart string
	var stop bool
	cmd := &cobra.Command{
		Use: "run [flags] -- program [args]", GroupID: groupRun,
		Short: "Run any program as a pool of workers",
		Long: "Runs a program, of any language, as a pool of workers, and replaces them on HUP without a lost request.\n" +
			"In arguments and values of --env, %i is the slot of the worker, %g its generation, and %% a percent sign.\n" +
			"Options of start_server are accepted.\n\n" +
			"The exit status is 0 after a stop, 1 for an error, 2 for wrong usage, 3 if it gave up, 4 if another process\n" +
			"has the pid file, and 126 or 127 if the program cannot be executed or is not found.",
		RunE: func(cmd *cobra.Command, args []string) error {
			// A variable that a script has not set leaves an empty value. The program
			// must not run as root for that.
			for _, name := range []string{"user", "chroot", "dir", "envdir", "cgroup", "umask", "cpus", "max-memory"} {
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return usagef("--%s is empty", name)
				}
			}
			o.Args, o.Restart = args, restart
			return a.runProgram(o, restart == restartNow, stop)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.SortFlags = false
	f.IntVarP(&o.Workers, "workers", "n", 1, "number of workers")
	f.StringVar(&o.Name, "name", "", "name in logs and of the control socket (default that of the program)")
	f.StringArrayVar(&o.Listen, "listen", nil, "address: PORT, HOST:PORT, :PORT, unix:/PATH or udp:HOST:PORT; =FD behind it is its descriptor")
	f.StringVar(&o.Pass, "pass", "", "how sockets are passed: starter, systemd, both or none (default starter with --listen)")
	f.IntVar(&o.Backlog, "backlog", 0, "length of the accept queue (default that of the system)")
	f.StringArrayVar(&o.Trap, "trap", nil, "SIG=ACTION: SIG, SIG/INTERVAL, rolling, rolling/LINGER or none (default TERM=TERM, HUP=rolling)")
	f.StringVar(&o.StopSignal, "stop-signal", "", "signal that stops a worker (default TERM)")
	f.DurationVar(&o.StopTimeout, "stop-timeout", program.DefaultStop, "time until a worker that stops is killed; 0 means never")
	f.BoolVar(&o.Group, "group", true, "stop the process group of a worker")
	f.BoolVar(&o.NoGroup, "no-group", false, "stop the process of a worker only")
	f.BoolVar(&o.KillAll, "kill-all", false, "kill all that the program has started, at the end, and at once if SIGKILL ends this command (Linux)")
	f.StringVar(&o.Ready, "ready", "", "when a worker is ready: alive:TIME, fd:N, notify, http:URL, tcp:ADDR or at-once (default "+program.DefaultReady+")")
	f.DurationVar(&o.ReadyTimeout, "ready-timeout", program.DefaultReadyIn, "time until a worker that is not ready is killed; 0 means never")
	f.StringVar(&o.Backoff, "backoff", program.DefaultBackoff, "delays after young bad ends")
	f.StringVar(&restart, "restart", "always", "after an exit: always, on-failure or never. Alone it is start_server's: replace the workers of the pid file")
	f.StringVar(&o.Success, "success", "", "exit codes that are a success, beside 0")
	f.StringVar(&o.GiveUp, "give-up", "0", "N or N/TIME: end after so many failures while no worker is ready; 0 means never")
	f.DurationVar(&o.MaxAge, "max-age", 0, "replace a worker of this age, or up to 20 % below; 0 means never")
	f.StringVar(&o.MaxMemory, "max-memory", "", "replace a worker that has more memory, such as 512M")
	f.IntVar(&o.Surge, "surge", 1, "workers beyond -n during a replacement")
	f.StringArrayVar(&o.Env, "env", nil, "NAME=VALUE: a variable of the program")
	f.StringArrayVar(&o.Unset, "unset", nil, "name of a variable that the program does not get")
	f.BoolVar(&o.CleanEnv, "clean-env", false, "the program gets only the variables of --env and --envdir")
	f.StringVar(&o.EnvDir, "envdir", "", "directory with a file for each variable, read at each spawn")
	f.StringVar(&o.Dir, "dir", "", "working directory of the program")
	f.StringVar(&o.User, "user", "", "USER or USER:GROUP of the program, by name or number")
	f.StringSliceVar(&o.Groups, "groups", nil, "supplementary groups of the program, A,B or '' for none (default those of the user)")
	f.StringVar(&o.Chroot, "chroot", "", "root directory of the program")
	f.StringVar(&o.Umask, "umask", "", "file mode creation mask of the program, such as 027")
	f.IntVar(&o.Nice, "nice", 0, "nice value of the program, from -20 to 19; 0 means that of this process")
	f.StringVar(&o.CPUs, "cpus", "", "CPUs on which the program runs, such as 0-3,8")
	f.StringArrayVar(&o.Limits, "limit", nil, "NAME=SOFT or NAME=SOFT:HARD: as, core, cpu, data, fsize, memlock, nofile, nproc or stack, such as nofile=4096")
	f.BoolVar(&o.NoNewPrivs, "no-new-privs", false, "the program gains no privileges by executing a file")
	f.StringVar(&o.Cgroup, "cgroup", "", "cgroup in which the program is started")
	f.StringVar(&o.PIDFile, "pid-file", "", "pid file, which is locked")
	f.StringVar(&o.StatusFile, "status-file", "", "file with a line GENERATION:PID for each worker that is ready")
	f.StringVar(&o.Control, "control", "", "path of the control socket, or off")
	f.StringVar(&o.Journal, "journal", "", "journal of all events")
	f.StringVar(&o.Log, "log", "-", "the target of its output: - (stderr), a FILE, '| COMMAND', or none for the streams of this process")
	f.BoolVar(&o.LogPrefix, "log-prefix", false, "put NAME[SLOT/PID] before each line")
	f.BoolVar(&o.LogJSON, "log-json", false, "write an object of JSON for each line")
	f.StringVar(&o.LogMax, "log-max", "", "SIZE,N: rotate the file at this size, and keep N")

	f.BoolVar(&o.Daemonize, "daemonize", false, "go into the background when the first workers are ready; needs --log FILE or '| COMMAND'")

	// Options of start_server.
	f.StringArrayVar(&o.Port, "port", nil, "start_server: --listen, with u before the port for UDP")
	f.StringArrayVar(&o.Path, "path", nil, "start_server: --listen unix:, for all users")
	f.StringVar(&o.Interval, "interval", "", "start_server: --ready alive:SECONDS")
	f.StringVar(&o.SignalOnHup, "signal-on-hup", "", "start_server: signal to the old workers on HUP")
	f.StringVar(&o.SignalOnTerm, "signal-on-term", "", "start_server: --stop-signal")
	f.StringVar(&o.KillOldDelay, "kill-old-delay", "", "start_server: seconds between a ready worker and the signal to the old one")
	f.BoolVar(&o.AutoRestart, "enable-auto-restart", false, "start_server: replace workers by age")
	f.StringVar(&o.AutoRestartInterval, "auto-restart-interval", program.DefaultAutoRestart, "start_server: that age, in seconds")
	f.StringVar(&o.Log, "log-file", "-", "start_server: --log")
	f.BoolVar(&stop, "stop", false, "start_server: stop the process of the pid file, and wait for its end")

	for _, name := range []string{"envdir", "dir", "chroot", "cgroup"} {
		cmd.MarkFlagDirname(name)
	}
	return cmd
}

// restartNow is the value of --restart without one, as start_server has it.
const restartNow = "now"

// startServerRestart gives start_server's --restart, which has no value, one. It
// looks at the flags before the program only: what follows is the program's.
func startServerRestart(root *cobra.Command, args []string) []string {
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.Name() != "run" {
		return args
	}
	out := append([]string{"run"}, rest...)
	for i := 1; i < len(out) && strings.HasPrefix(out[i], "-") && out[i] != "--"; i++ {
		if out[i] != "--restart" {
			if takesNext(cmd, out[i]) {
				i++
			}
		} else if i+1 < len(out) && slices.Contains([]string{"always", "on-failure", "never"}, out[i+1]) {
			i++
		} else {
			out[i] += "=" + restartNow
		}
	}
	return out
}

// takesNext reports whether the value of a flag is the next argument. It
// is true for an unknown flag, which is an error anyway.
func takesNext(cmd *cobra.Command, arg string) bool {
	name, long := strings.CutPrefix(arg, "--")
	if strings.Contains(name, "=") || !long && len(arg) > 2 {
		return false
	}
	cmd.InheritedFlags() // adds those of the root to cmd.Flags
	flag := cmd.Flags().Lookup(name)
	if !long {
		flag = cmd.Flags().ShorthandLookup(arg[1:])
	}
	return flag == nil || flag.NoOptDefVal == ""
}

func (a *app) runProgram(o program.Options, restart, stop bool) error {
	ctx := context.Background()
	var err error
	switch {
	case restart || stop:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
		if restart {
			err = program.Restart(ctx, o.PIDFile, o.StatusFile)
		} else {
			err = program.Stop(ctx, o.PIDFile)
		}
	default:
		err = program.Run(ctx, o, os.Stderr)
	}
	if err == nil {
		return nil
	}
	var usage *program.UsageError
	text := "prefork run: " + strings.TrimPrefix(err.Error(), "prefork: ")
	if err.Error() == "" { // the daemon has printed it
		text = ""
	} else if errors.As(err, &usage) {
		text += "; see prefork run --help"
	}
	return &exitError{code: program.Status(err), text: text}
}
