package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
	"github.com/prefork-go/prefork/cmd/prefork/internal/watch"
)

func (a *app) watchCommand() *cobra.Command {
	var o watch.Options
	var crontab bool
	cmd := &cobra.Command{
		Use: "watch [flags] DIR", GroupID: groupRun,
		Short: "Keep the programs and service directories of a directory running",
		Long: "Keeps each executable file of DIR running, and each directory in it that has an executable run, as\n" +
			"runsvdir and svscan do. Files that come, change or go are started, restarted or stopped.\n\n" +
			"HUP and ALRM look at DIR at once, USR1 opens the log file again. TERM and INT stop all services; a\n" +
			"second INT kills them. QUIT kills them at once.\n\n" +
			"The exit status is 0 after a stop, 1 for an error and after QUIT, 2 for wrong usage, and that of\n" +
			"--busy-exit if another process watches DIR or writes to the journal.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Dir = args[0]
			if !cmd.Flags().Changed("log-prefix") {
				o.LogPrefix = !o.LogJSON && o.Log != output.None
			}
			if crontab {
				return a.printCrontab(o, cmd)
			}
			return a.watchError(o, watch.Run(context.Background(), o, os.Stderr))
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.Name, "name", "", "name in logs and of the control socket (default that of DIR)")
	f.StringVar(&o.Control, "control", "", "path of the control socket, or off")
	f.StringVar(&o.Journal, "journal", "", "journal of all events")
	f.BoolVar(&o.Wait, "wait", false, "wait while another process watches DIR or writes to the journal")
	f.IntVar(&o.BusyExit, "busy-exit", 0, "exit status if another process does so")
	f.DurationVar(&o.StopTimeout, "stop-timeout", watch.DefaultStop, "time until a program that stops is killed; 0 means never")
	f.StringVar(&o.Backoff, "backoff", watch.DefaultBackoff, "delays of a program after short lives; empty means none")
	f.DurationVar(&o.Settle, "settle", watch.DefaultSettle, "how long nothing must happen to a file before it counts as changed")
	f.IntVar(&o.Max, "max", watch.DefaultMax, "maximum number of services")
	f.StringVar(&o.Style, "style", "runit", "first argument of finish after a signal: runit (-1) or s6 (256)")
	f.BoolVar(&o.Once, "once", false, "start each service once, and end when all have ended")
	f.StringVar(&o.Log, "log", output.Stderr, "the target of its output: - (stderr), a FILE, '| COMMAND', or none for the streams of this process")
	f.BoolVar(&o.LogPrefix, "log-prefix", true, "put NAME[SLOT/PID] before each line")
	f.BoolVar(&o.LogJSON, "log-json", false, "write an object of JSON for each line, without that prefix")
	f.StringVar(&o.LogMax, "log-max", "", "SIZE,N: rotate the file at this size, and keep N")
	f.BoolVar(&crontab, "crontab", false, "print a crontab that runs this command, and exit")
	cmd.RegisterFlagCompletionFunc("style", cobra.FixedCompletions([]string{"runit", "s6"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printCrontab prints a crontab with the flags that were set. cron runs the command
// in another directory.
func (a *app) printCrontab(o watch.Options, cmd *cobra.Command) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	command := []string{program, "watch"}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		isPath := f.Name == "journal" || f.Name == "control" && isAddress(value) || f.Name == "log" && o.IsFile()
		if isPath && value[0] != '@' {
			value, err = filepath.Abs(value)
		}
		if f.Name != "crontab" && cmd.InheritedFlags().Lookup(f.Name) == nil {
			command = append(command, "--"+f.Name+"="+value)
		}
	})
	if err != nil {
		return err
	}
	text, err := watch.Crontab(dir, append(command, dir), "--quiet")
	if err != nil {
		return a.watchError(o, err)
	}
	_, err = fmt.Fprint(a.out, text)
	return err
}

func (a *app) watchError(o watch.Options, err error) error {
	var busy *watch.BusyError
	if err == nil || a.quiet && o.BusyExit == 0 && errors.As(err, &busy) {
		return nil
	}
	text := "prefork watch: " + err.Error()
	var usage *watch.UsageError
	if errors.As(err, &usage) {
		text += "; see prefork watch --help"
	}
	return &exitError{code: o.Status(err), text: text}
}
