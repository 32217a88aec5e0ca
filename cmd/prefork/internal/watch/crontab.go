package watch

import (
	"fmt"
	"strings"
)

// Crontab returns a crontab that starts a command when the machine starts, and
// each minute: a command that finds itself running already has no effect. It must not
// print that, since cron sends mail with each output: quiet, a flag, is added.
func Crontab(dir string, command []string, quiet string) (string, error) {
	var quoted []string
	for _, arg := range command {
		if strings.ContainsAny(arg, "\n\x00") {
			return "", &UsageError{fmt.Errorf("%q has a line break, which a crontab cannot contain", arg)}
		}
		quoted = append(quoted, quote(arg))
	}
	line := strings.Join(quoted, " ")
	return fmt.Sprintf("# keeps the services of %s running (put these lines into crontab -e)\n"+
		"# each minute: starts it again if it was killed, otherwise it exits with status 0\n"+
		"@reboot %s\n* * * * * %s %s\n", strings.ReplaceAll(dir, "\n", " "), line, line, quiet), nil
}

// quote quotes an argument for the shell in a line of a crontab. cron takes an
// unescaped percent sign for a line break, also in quotes, and some versions take
// two backslashes for one: none follows another here.
func quote(arg string) string {
	if arg != "" && strings.Trim(arg, plain) == "" {
		return arg
	}
	return "'" + strings.NewReplacer("'", `'"'"'`, `\`, `\''`, "%", `\%`).Replace(arg) + "'"
}

// plain are characters that need no quotes.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=.,:@"
