package main

import (
	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/cmd/prefork/internal/logger"
)

func (a *app) logCommand() *cobra.Command {
	return &cobra.Command{
		Use: "log [flags] DIR...", GroupID: groupRun,
		Short: "Write the standard input to a directory of rotated files",
		Long: `Writes its standard input to the file DIR/current and rotates it, as svlogd and
multilog do. It is the logger of a service directory (log/run), or stands behind a
pipe: PROGRAM 2>&1 | prefork log DIR

  -s SIZE         the size of a file in bytes (1000000; 0 for any)
  -n NUM          how many rotated files are kept (10; 0 for all)
  -N MIN          if the disk is full, remove the oldest down to this number
  -a AGE          rotate a file that is older: seconds, or a duration such as 24h
  -t, -tt, -ttt   begin lines with the time: as TAI64N, as
                  2006-01-02_15:04:05.00000 in UTC, or with T in place of _
  -p PREFIX       begin lines with this text, after the time
  -l LEN          split longer lines

ALRM rotates, HUP opens the file again, and TERM writes the content of the pipe and
ends the logger. The exit status is 0, 100 for wrong usage, or 111 for an error, such as
another logger in the directory.

A rotated file is named @TAI64N.s, or @TAI64N.u if a logger was killed while it wrote
the file. If the disk is full, the logger waits, and so does the program.`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
				return cmd.Help()
			}
			return &exitError{code: logger.Main("prefork log", args, a.err)}
		},
	}
}
