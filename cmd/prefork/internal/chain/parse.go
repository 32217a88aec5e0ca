//go:build unix

package chain

import (
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/prefork-go/prefork/cmd/prefork/internal/letters"
)

// chpst has the flags of that program, and -C and -N.
const chpst = "[-vP012N] [-u USER[:GROUP...]] [-U USER[:GROUP...]] [-b ARGV0] [-e DIR] [-/ ROOT] [-C DIR] [-n INC] [-l|-L LOCK] [-m|-d|-o|-p|-f|-c|-r|-t N] PROGRAM [ARG...]"

// usages has the names that Main knows, with what follows them.
var usages = map[string]string{
	"prefork exec": chpst,
	"chpst":        chpst,
	"softlimit":    "[-a|-c|-d|-f|-l|-m|-o|-p|-r|-s|-t N] PROGRAM [ARG...]",
	"setlock":      "[-nNxX] FILE PROGRAM [ARG...]",
	"envdir":       "DIR PROGRAM [ARG...]",
	"setuidgid":    "USER PROGRAM [ARG...]",
	"envuidgid":    "USER PROGRAM [ARG...]",
	"pgrphack":     "PROGRAM [ARG...]",
}

// Knows reports whether a program of this name is one that Main acts as.
func Knows(name string) bool { _, ok := usages[name]; return ok }

// Usage returns how a program of this name is called.
func Usage(name string) string { return "usage: " + name + " " + usages[name] }

// parse returns what args ask the program of this name to do.
func parse(name string, args []string) (*state, error) {
	s := &state{name: name}
	f := letters.New(name)
	f.SetInterspersed(false)
	switch name {
	case "prefork exec", "chpst":
		s.addFlags(f)
	case "softlimit":
		s.addLimits(f, "acdfmoprst")
		f.VarP(&limitFlag{s, []string{"memlock"}}, "lock-limit", "l", "")
	case "setlock":
		s.lock = &lock{waits: true}
		f.VarP(boolFunc(func() { s.lock.waits = false }), "no-delay", "n", "")
		f.VarP(boolFunc(func() { s.lock.waits = true }), "delay", "N", "")
		f.VarP(boolFunc(func() { s.lock.quiet = true }), "quiet", "x", "")
		f.VarP(boolFunc(func() { s.lock.quiet = false }), "loud", "X", "")
		for _, name := range []string{"no-delay", "delay", "quiet", "loud"} {
			f.Lookup(name).NoOptDefVal = "true"
		}
	}
	if err := letters.Parse(f, args); err != nil {
		return nil, err
	}
	args = f.Args()
	take := func(set func(string) error, missing string) error {
		if len(args) == 0 {
			return errors.New("no " + missing)
		}
		set(args[0])
		args = args[1:]
		return nil
	}
	var err error
	switch name {
	case "setlock":
		err = take(func(path string) error { s.lock.path = path; return nil }, "file")
	case "envdir":
		err = take(s.envDir.Set, "directory")
	case "setuidgid":
		err = take(s.user.Set, "user")
	case "envuidgid":
		err = take(s.account.Set, "user")
	case "pgrphack":
		s.session = true
	}
	if err != nil {
		return nil, err
	}
	if s.program = args; len(args) == 0 || args[0] == "" {
		return nil, errors.New("no program")
	}
	return s, nil
}

func (s *state) addFlags(f *pflag.FlagSet) {
	f.VarP(&s.user, "user", "u", "")
	f.VarP(&s.account, "env-user", "U", "")
	f.VarP(&s.argv0, "argv0", "b", "")
	f.VarP(&s.envDir, "envdir", "e", "")
	f.VarP(&s.root, "chroot", "/", "")
	f.VarP(&s.dir, "dir", "C", "")
	f.IntVarP(&s.nice, "nice", "n", 0, "")
	f.VarP(&lockFlag{s, true}, "lock", "l", "")
	f.VarP(&lockFlag{s, false}, "try-lock", "L", "")
	f.BoolVarP(&s.session, "session", "P", false, "")
	f.BoolVarP(&s.close[0], "close-stdin", "0", false, "")
	f.BoolVarP(&s.close[1], "close-stdout", "1", false, "")
	f.BoolVarP(&s.close[2], "close-stderr", "2", false, "")
	f.BoolVarP(&s.noNewPrivs, "no-new-privs", "N", false, "")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "")
	s.addLimits(f, "mdopfcrt")
}

// limitsOf are the limits that a letter of softlimit sets.
var limitsOf = map[rune][]string{
	'a': {"as"}, 'c': {"core"}, 'd': {"data"}, 'f': {"fsize"}, 'm': {"data", "stack", "memlock", "as"},
	'o': {"nofile"}, 'p': {"nproc"}, 'r': {"rss"}, 's': {"stack"}, 't': {"cpu"},
}

func (s *state) addLimits(f *pflag.FlagSet, letters string) {
	for _, letter := range letters {
		f.VarP(&limitFlag{s, limitsOf[letter]}, "limit-"+strings.Join(limitsOf[letter], "-"), string(letter), "")
	}
}

// limitFlag is a soft limit: a number, or = for the hard limit.
type limitFlag struct {
	s         *state
	resources []string
}

func (l *limitFlag) Set(text string) error {
	n, err := uint64(unlimited), error(nil)
	if text != "=" {
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			return errors.New("a limit is a number, or = for the hard limit")
		}
	}
	for _, resource := range l.resources {
		l.s.limits = append(l.s.limits, limit{resource, n})
	}
	return nil
}

func (l *limitFlag) String() string { return "" }
func (l *limitFlag) Type() string   { return "number" }

// optional is a text that may be empty, as that of a variable of a script which is
// not set. It is then wrong, and not the same as none: -u "$USER" must not leave the
// user as it is.
type optional struct {
	text  string
	given bool
}

func (o *optional) Set(text string) error { o.text, o.given = text, true; return nil }
func (o *optional) String() string        { return o.text }
func (o *optional) Type() string          { return "text" }

type lockFlag struct {
	s     *state
	waits bool
}

func (l *lockFlag) Set(path string) error {
	l.s.lock = &lock{path: path, waits: l.waits}
	return nil
}

func (l *lockFlag) String() string { return "" }
func (l *lockFlag) Type() string   { return "file" }

// boolFunc is called for a flag without a value. The last one counts.
type boolFunc func()

func (f boolFunc) Set(string) error { f(); return nil }
func (f boolFunc) String() string   { return "" }
func (f boolFunc) Type() string     { return "bool" }
