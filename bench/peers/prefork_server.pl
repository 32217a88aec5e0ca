# An HTTP server with Parallel::Prefork, as in its documentation. Arguments: port, workers.
use strict;
use warnings;
use IO::Socket::INET;
use Parallel::Prefork;

my ($port, $workers) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 128, ReuseAddr => 1) or die "listen: $!";
my $pm = Parallel::Prefork->new({
    max_workers          => $workers,
    err_respawn_interval => 0,
    trap_signals         => { TERM => 'TERM', HUP => 'TERM' },
});
while ($pm->signal_received ne 'TERM') {
    $pm->start and next;
    while (my $conn = $listener->accept) {
        1 while defined($_ = <$conn>) && /\S/;
        my $body = "$$";
        print $conn "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ", length $body, "\r\n\r\n$body";
        close $conn;
    }
    $pm->finish;
}
$pm->wait_all_children;
