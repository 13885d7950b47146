// Everything is defined: begin.

startTheme();
startPlots();
startExplorer();
startTabs();
startKeys();
