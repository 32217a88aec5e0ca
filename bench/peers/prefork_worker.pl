# A worker of Parallel::Prefork that prints a line when it is ready.
use strict;
use warnings;
use Parallel::Prefork;

my $pm = Parallel::Prefork->new({
    max_workers          => 1,
    err_respawn_interval => 0,
    trap_signals         => { TERM => 'TERM' },
});
while ($pm->signal_received ne 'TERM') {
    $pm->start and next;
    syswrite STDOUT, "ready $$\n";
    sleep while 1;
}
$pm->wait_all_children;
