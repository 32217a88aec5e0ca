//go:build unix && !linux && !solaris && !aix

package logger

// fionread is _IOR('f', 127, int) on all BSDs. Package unix does not have it.
const fionread = 0x4004667f

func (l *logger) chooseStep() error {
	l.step = l.read
	return nil
}
