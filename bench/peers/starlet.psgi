my $app = sub { [200, ['Content-Type' => 'text/plain', 'Content-Length' => length $$], [$$]] };
