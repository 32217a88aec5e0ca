# An idle pool of Parallel::Prefork::SpareWorkers, as in its documentation. Argument: workers.
use strict;
use warnings;
use Parallel::Prefork::SpareWorkers qw(:status);

$| = 1;
my $n = shift;
my $pm = Parallel::Prefork::SpareWorkers->new({
    max_workers       => $n,
    min_spare_workers => $n,
    trap_signals      => { TERM => 'TERM', HUP => 'TERM' },
});
while ($pm->signal_received ne 'TERM') {
    $pm->start and next;
    syswrite STDOUT, "ready $$\n";
    $pm->set_status(STATUS_IDLE);
    sleep while 1;
}
$pm->wait_all_children;
