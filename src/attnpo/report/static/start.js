// Everything is defined: begin.

startTheme();
startMaths();
startCues();
startPlots();
startExplorer();
startTabs();
startKeys();
