module github.com/prefork-go/prefork/ops

go 1.26.0

require (
	github.com/DeRuina/timberjack v1.4.10
	github.com/coreos/go-systemd/v22 v22.7.0
	github.com/fsnotify/fsnotify v1.10.1
	github.com/prefork-go/prefork v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/klauspost/compress v1.18.7 // indirect
	github.com/lestrrat-go/server-starter v0.0.0-20210101230921-50cd1900b5bc // indirect
)

replace github.com/prefork-go/prefork => ../
