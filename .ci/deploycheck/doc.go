// Package deploycheck tests what the repository ships for those who deploy rollcall: the Dockerfile
// and everything under deploy/, each with its field's own parser or tool. It is a module of its
// own, so that the product does not depend on them.
//
//	go -C .ci/deploycheck test ./...
//
// It needs promtool (Debian's package prometheus) and systemd-analyze (Debian's package systemd),
// and fails without them.
package deploycheck
