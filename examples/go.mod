module github.com/prefork-go/prefork/examples

go 1.26.0

require (
	github.com/alecthomas/kong v1.17.0
	github.com/mikespook/gearman-go v0.0.0-20220520031403-2a518e866145
	github.com/prefork-go/prefork v0.0.0
	github.com/prefork-go/prefork/ops v0.0.0
	github.com/valyala/fasthttp v1.74.0
	golang.org/x/sys v0.49.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/fsnotify/fsnotify v1.10.1 // indirect
	github.com/klauspost/compress v1.20.0 // indirect
	github.com/lestrrat-go/server-starter v0.0.0-20210101230921-50cd1900b5bc // indirect
	github.com/molecule-man/go-brrr v1.0.1 // indirect
	github.com/valyala/bytebufferpool v1.0.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
)

replace github.com/prefork-go/prefork => ../

replace github.com/prefork-go/prefork/ops => ../ops
