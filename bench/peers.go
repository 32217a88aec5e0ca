//go:build linux

package main

import (
	"embed"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed peers
var peerFiles embed.FS

// debian names the package of each command that a peer needs; bench/setup.sh installs them all.
var debian = map[string]string{
	"perl": "perl", "plackup": "libplack-perl", "start_server": "libserver-starter-perl",
	"gunicorn": "gunicorn", "unicorn": "unicorn", "runsv": "runit", "s6-supervise": "s6", "wrk": "wrk",
}

// command finds a peer's command.
func command(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &notInstalled{name, "bench/setup.sh installs it, or apt-get install " + debian[name]}
	}
	return path, nil
}

// perl finds perl with the modules that a script needs.
func perl(modules ...string) (string, error) {
	path, err := command("perl")
	if err != nil {
		return "", err
	}
	for _, m := range modules {
		if exec.Command(path, "-M"+m, "-e", "1").Run() != nil {
			return "", &notInstalled{"Perl's " + m, "bench/setup.sh installs it"}
		}
	}
	return path, nil
}

// perlScript is the command line of one of the scripts below peers.
func (r *run) perlScript(name string, modules ...string) ([]string, error) {
	path, err := perl(modules...)
	if err != nil {
		return nil, err
	}
	file, err := r.script(name)
	return []string{path, file}, err
}

// script writes one of the files below peers into the run's directory.
func (r *run) script(name string) (string, error) {
	text, err := peerFiles.ReadFile("peers/" + name)
	if err != nil {
		return "", err
	}
	return r.write(name, string(text))
}

// write makes a file in the run's directory.
func (r *run) write(name, text string) (string, error) {
	file := filepath.Join(r.dir, name)
	return file, os.WriteFile(file, []byte(text), 0o644)
}
