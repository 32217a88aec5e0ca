package main

import (
	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/cmd/prefork/internal/chain"
)

func (a *app) execCommand() *cobra.Command {
	return &cobra.Command{
		Use: "exec [flags] PROGRAM [ARG...]", GroupID: groupRun,
		Short: "Change user, limits, environment and more, and execute a program",
		Long: `Changes this process, and executes a program in its place, as chpst does.

  -u USER[:GROUP...]  become this user; numbers are given as :UID:GID
  -U USER[:GROUP...]  set UID and GID in the environment
  -e DIR              set the variables of a directory with a file for each
  -b ARGV0            the name that the program sees as its own
  -/ ROOT             change the root directory
  -C DIR              change the directory, in the root directory
  -n INC              add to the nice value
  -l LOCK, -L LOCK    hold a lock on a file, and wait for it; or fail (-L)
  -P                  lead a session and a process group
  -0, -1, -2          close the standard input, output or error
  -N                  no new privileges (Linux)
  -v                  report limits that are not set as asked

Soft limits, at most the hard ones; = is the hard one:

  -m BYTES            data, stack, locked memory and address space
  -d BYTES, -f BYTES  data; a file that is written
  -c BYTES, -r BYTES  core file; resident memory
  -o N, -p N, -t SEC  open files; processes; processor time

It acts as chpst, envdir, envuidgid, pgrphack, setlock, setuidgid or softlimit if a
link of that name calls it. The exit status is 100 for wrong usage, 111 for an
error, and otherwise that of the program.`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asksForHelp(args) {
				return cmd.Help()
			}
			return &exitError{code: chain.Main("prefork exec", args, a.err)}
		},
	}
}
