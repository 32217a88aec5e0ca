package main

import (
	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/cmd/prefork/internal/logger"
)

func (a *app) logCommand() *cobra.Command {
	return &cobra.Command{
		Use: "log [flags] [--] [+PATTERN|-PATTERN]... DIR...", GroupID: groupRun,
		Short: "Write the standard input to a directory of rotated files",
		Long: `Writes its standard input to the file DIR/current and rotates it, as svlogd and
multilog do. It is the logger of a service directory (log/run), or stands behind a
pipe: PROGRAM 2>&1 | prefork log DIR

  -s SIZE         the size of a file in bytes (1000000; 0 for any)
  -n NUM          how many rotated files are kept (10; 0 for all)
  -N MIN          if the disk is full, remove the oldest down to this number
  -a AGE          rotate a file that is older: seconds, or a duration such as 24h
  -z              compress rotated files by gzip
  -t, -tt, -ttt   begin lines with the time: as TAI64N, as
                  2006-01-02_15:04:05.00000 in UTC, or with T in place of _
  -p PREFIX       begin lines with this text, after the time
  -l LEN          split longer lines
  -r CHAR         replace bytes that are not printable ASCII
  -R CHARS        replace these, too (by _ without -r)

Each line is selected at first. For the directories after it, +PATTERN selects the
lines that it matches, and -PATTERN drops them, in order:

  prefork log -t -- '-*' '+*: error: *' errors '+*' all

A pattern matches a whole line, or the first 1000 bytes of a longer one. A star at
its end matches any text, and another star a text without the character after it.
The time and the prefix do not belong to the line.

DIR/config has lines as for svlogd: sSIZE, nNUM, NMIN, tAGE, pPREFIX, +PATTERN,
-PATTERN, and ePATTERN and EPATTERN, which select lines for the standard error.
!COMMAND runs a shell command for each rotated file, in place of -z. These lines are
in place of the flags, and their patterns act after those of the command line.

ALRM rotates, HUP opens the file and reads DIR/config again, and TERM writes the
content of the pipe and ends the logger. At the end, all files are processed. A
command that takes more than a minute then is killed, and another TERM leaves all
to the next logger. The exit status is 0, 100 for wrong usage,
or 111 for an error, such as another logger in the directory.

A rotated file is named @TAI64N.s, or @TAI64N.s.gz. It is @TAI64N.u before it is
compressed, or if a logger was killed while it wrote the file. If the disk is full,
the logger waits, and so does the program.`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asksForHelp(args) {
				return cmd.Help()
			}
			return &exitError{code: logger.Main("prefork log", args, a.err)}
		},
	}
}
