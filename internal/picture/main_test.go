package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// The committed picture is the output of the program.
func TestCommittedPicture(t *testing.T) {
	committed, err := os.ReadFile("../../docs/prefork.svg")
	if err != nil {
		t.Fatal(err)
	}
	drawn := draw()
	if string(committed) != drawn {
		t.Error("docs/prefork.svg differs from the program's output: run go run ./internal/picture >docs/prefork.svg")
	}
	for d := xml.NewDecoder(strings.NewReader(drawn)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
